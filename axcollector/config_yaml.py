"""Reading a YAML file of settings: what it says, or one line on why it cannot be used."""

import os
from typing import Any

import yaml

from axcollector.core.errors import ConfigError


def read_yaml(path: str) -> dict[str, object]:
    """The mapping that a file holds; an empty file holds an empty one.

    Raises:
        ConfigError: It cannot be read, is no YAML, or holds anything else.
    """
    try:
        with open(path, "rb") as file:
            document = yaml.load(file, _Loader)  # noqa: S506 - a safe loader
    except OSError as exc:
        raise ConfigError(f"the configuration file {path} cannot be read: {exc.strerror}") from exc
    except yaml.MarkedYAMLError as exc:
        where = f" (line {exc.problem_mark.line + 1})" if exc.problem_mark else ""
        raise ConfigError(f"{path} is not usable YAML: {exc.problem or exc.context}{where}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        raise ConfigError(f"{path} is not usable YAML: {' '.join(str(exc).split())}") from None
    if document is None:
        return {}
    if not isinstance(document, dict) or not all(isinstance(key, str) for key in document):
        raise ConfigError(f"{os.path.normpath(path)} holds no settings; allowed are lines of the form key: value")
    return document


class _Loader(yaml.SafeLoader):
    """YAML without objects, and without one key twice, of which all but the last would be lost in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:str":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is set twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)
