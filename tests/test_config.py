"""The configuration: what is taken, from where, and how what is not taken is refused."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axcollector.config import KEYS, MIB, Config
from axcollector.config_endpoints import is_local, split_endpoint
from axcollector.config_file import Loaded, load_config, read_config
from axcollector.config_values import Choice
from axcollector.core.errors import ConfigError
from axcollector.journal import Durability


def loaded(directory: Path, text: str, **overrides: object) -> Loaded:
    """What a file of this text makes."""
    path = directory / "axcollector.yaml"
    path.write_text(text)
    return read_config(str(path), overrides)


def refusal_of(make: Any) -> str:
    """The message of the ConfigError that a call raises; it is one line."""
    with pytest.raises(ConfigError) as caught:
        make()
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_defaults() -> None:
    """Without a file there are the embedded defaults, with absolute paths."""
    config = load_config(None, {})
    root = os.path.abspath("axcollector-data")
    assert config == Config()
    assert config.listen == ("tcp:9000:interface=127.0.0.1",)
    assert config.admin_listen == "tcp:9001:interface=127.0.0.1"
    assert (config.collection_interval, config.close_grace, config.upload_interval) == (120, 5, 5)
    assert (config.journal_max_bytes, config.max_body_bytes) == (256 * MIB, 10 * MIB)
    assert (config.max_connections, config.max_connections_per_address) == (10_000, 0)
    assert config.local_storage_path == root
    assert config.data_directory == root + "/ax"
    assert config.registry_file == root + "/registry.db"
    assert config.store_url == f"file:{root}/store"
    assert config.tokens_file == f"{root}/tokens.db"
    assert (config.ingest_auth, config.rate_limit_records, config.rate_limit_bytes) == ("none", 0, 0)


def test_derived_paths_follow_what_is_given(tmp_path: Path) -> None:
    """Paths that were given are used in place of those below the data directory."""
    config = Config(
        local_storage_path=str(tmp_path), data_path="/a/b", registry_path=str(tmp_path / "r.db"), store="file:/s"
    )
    assert config.data_directory == f"{tmp_path}/a/b"
    assert config.registry_file == f"{tmp_path}/r.db"
    assert config.store_url == "file:/s"


def test_paths_survive_a_change_of_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path means the directory at the time it was given."""
    monkeypatch.chdir(tmp_path)
    config = Config(local_storage_path="data", store="file:store")
    monkeypatch.chdir("/")
    assert config.data_directory == str(tmp_path / "data/ax")
    assert config.store_url == f"file:{tmp_path}/store"


TAKEN: list[tuple[str, object, object]] = [
    ("listen", "tcp:80", ("tcp:80",)),
    ("listen", ["tcp:80", "unix:/run/a.sock"], ("tcp:80", "unix:/run/a.sock")),
    ("listen", "tcp:port=0:interface=\\:\\:1", ("tcp:port=0:interface=\\:\\:1",)),
    ("listen", "systemd:domain=INET:index=0", ("systemd:domain=INET:index=0",)),
    ("listen", "axtls:9443:certificate=c:key=k:client_ca=a", ("axtls:9443:certificate=c:key=k:client_ca=a",)),
    ("listen", "axtls:systemd=ingest:certificate=c:key=k", ("axtls:systemd=ingest:certificate=c:key=k",)),
    ("admin_listen", "", ""),
    ("admin_listen", None, ""),
    ("admin_listen", "unix:/run/admin.sock", "unix:/run/admin.sock"),
    ("base_path", "/a/b-c", "/a/b-c"),
    ("base_path", "/...", "/..."),
    ("local_storage_path", "/x/../y", "/y"),
    ("local_storage_path", Path("/y"), "/y"),
    ("collection_interval", 1, 1),
    ("collection_interval", "86400", 86400),
    ("close_grace", 0, 0.0),
    ("close_grace", "0.25", 0.25),
    ("max_body_bytes", 1, 1),
    ("max_body_bytes", "4096", 4096),
    ("max_body_bytes", "10 MiB", 10 * MIB),
    ("max_body_bytes", "256MiB", 256 * MIB),
    ("max_body_bytes", "1GiB", 1024 * MIB),
    ("max_body_bytes", "10MB", 10_000_000),
    ("max_body_bytes", "10 kB", 10_000),
    ("spool_quota_bytes", 0, 0),
    ("durability", "write", "write"),
    ("use_caching", False, False),
    ("use_caching", "No", False),
    ("use_caching", "1", True),
    ("uap_server_base", "https://host:8443/base/", "https://host:8443/base"),
    ("uap_server_base", "http://[::1]:80", "http://[::1]:80"),
    ("uap_server_base", None, None),
    ("store", "file:///var/x", "file:/var/x"),
    ("store", "file:/var//x/", "file:/var/x"),
    ("store", "s3://bucket", "s3://bucket"),
    ("store", "s3://my.bucket/a/b/", "s3://my.bucket/a/b/"),
    ("s3_endpoint_url", "http://127.0.0.1:9000/", "http://127.0.0.1:9000"),
    ("s3_region", "auto", "auto"),
    ("upload_proxy", "http://proxy:3128/", "http://proxy:3128"),
    ("upload_proxy", "https://user:p%40ss@proxy", "https://user:p%40ss@proxy"),
    ("bearer_token", "abc.def", "abc.def"),
    ("ingest_auth", "token", "token"),
    ("rate_limit_records", "500", 500),
    ("rate_limit_bytes", "10 MB", 10_000_000),
    ("rate_limit_burst", 1, 1.0),
    ("instance_id", "0b7de3c5-58fc-4a25-8a5e-3a3ea5c14b63", "0b7de3c5-58fc-4a25-8a5e-3a3ea5c14b63"),
    ("instance_id", "abcdefgh-ijkl-mnop-qrst-uvwxyz123456", "abcdefgh-ijkl-mnop-qrst-uvwxyz123456"),
    ("sync", "none", "none"),
    ("apigeesync_poll_interval", 120, 120.0),
    ("apigeesync_poll_interval", "1.5", 1.5),
    ("apigeesync_poll_interval", "90s", 90.0),
    ("apigeesync_poll_interval", "2m", 120.0),
    ("apigeesync_poll_interval", "1500ms", 1.5),
    ("apigeesync_cluster_id", "A-Cluster", "A-Cluster"),
]


def test_values_that_are_taken() -> None:
    """A value becomes what `Config` holds, and reading that again changes nothing."""
    for key, value, expected in TAKEN:
        config = Config(**{key: value})  # type: ignore[arg-type]
        assert (key, expected) == (key, getattr(config, key))
        assert config == replace(config)


REFUSED: dict[str, list[object]] = {
    "listen": [
        *("", [], "tcp", "tcp:", "tcp:x", "tcp:65536", "tcp:-1", " tcp:80", "tcp:80\n", ":80", "ssl:x=1"),
        *("axtls:x:certificate=c:key=k", "axtls:certificate=c:key=k", "axtls:65536:certificate=c:key=k"),
        *(None, 9000, ["tcp:80", "tcp:80"], [""], {"tcp": 80}, b"tcp:80"),
    ],
    "admin_listen": ["9001", ["tcp:9001"], 0],
    "base_path": ["", "/", "analytics", "/a/", "//a", "/a//b", "/../x", "/a/.", "/ä", "/a b", "/<x>"],
    "data_path": ["/..", "/a/../../b", "ax", None, "/a\0"],
    "local_storage_path": ["", None, 7, "a\0b", b"/x"],
    "collection_interval": [0, -1, 86_401, 1.5, True, None, "", "1.5", "1e3", "٣", "1 s", []],
    "close_grace": [-0.1, True, "x", float("nan"), float("inf"), None, "1e1"],
    "max_body_bytes": [0, -1, "0", "10 mib", "1.5 MiB", "MiB", "", False, 1.0, "9" * 30],
    "upload_concurrency": [0, 1025],
    "workers": [-1, 1025],
    "durability": ["FSYNC", "", None, True],
    "use_caching": [1, 0, "", "maybe", None, "tru"],
    "uap_server_base": [
        *("host", "ftp://host", "http://", "http://h:0", "http://h:99999", "http://h/?a"),
        *("http://u:p@h", "http://h/#x", "http://h/ x", "", 5, "http://[::1"),
    ],
    "store": [
        *("/var/x", "file:", "s3:", "s3://B/x", "s3://ab", "gs://bucket", "", 5),
        *("s3://bucket//x", "s3://bucket/../x", "s3://bucket/x/.", "s3://bucket/a b"),
    ],
    "s3_endpoint_url": ["127.0.0.1:9000", "http://u:p@h", "http://h/?x", ""],
    "s3_region": ["", "eu west", None, 1, "x/y"],
    "upload_proxy": ["proxy:3128", "http://", "http://h:0", "http://h/path", "http://:p@h", "socks5://h", "", 5],
    "instance_id": ["", "a_b", "a" * 65, "a/b", 5],
    "bearer_token": ["", "a b", "ä", 12345, "x" * 5000],
    "bearer_token_file": ["", 5],
    "ingest_auth": ["", "Token", "basic", None, True],
    "rate_limit_records": [-1, 0.5, "1/s", None],
    "rate_limit_bytes": [-1, "1MB/s"],
    "rate_limit_burst": [0, 0.5, "10s", 100_000],
    "apigeesync_poll_interval": [0, "0s", "500ms", "2 m", "m", "-1s", "1d", "1h30m", True, None],
    "apigeesync_consumer_secret": ["", "a b", 5],
}


@pytest.mark.parametrize("key", REFUSED)
def test_values_that_are_refused(key: str) -> None:
    """A value that cannot be used is named, with its key and what is allowed instead."""
    for value in REFUSED[key]:
        message = refusal_of(lambda value=value: Config(**{key: value}))
        assert message.startswith(f"{key}: ")
        assert message.endswith(f"is not allowed; allowed is {KEYS[key].kind.allowed}")
        assert len(message) < 400


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"bearer_token": "t", "bearer_token_file": "/t"}, ("bearer_token", "bearer_token_file")),
        ({"listen": ["tcp:1", "unix:/x"], "admin_listen": "unix:/x"}, ("admin_listen", "listen")),
        ({"listen": "tcp:1:localhost", "admin_listen": "tcp:1:localhost"}, ("admin_listen", "listen")),
        ({"local_storage_path": "/d", "store": "file:/d/ax/staging"}, ("store", "data_path")),
        ({"local_storage_path": "/d", "registry_path": "/d/ax"}, ("registry_path", "data_path")),
        ({"local_storage_path": "/d", "data_path": "/store"}, ("store", "data_path")),
    ],
)
def test_values_that_do_not_suit_each_other(values: dict[str, Any], names: tuple[str, str]) -> None:
    """Where two keys contradict each other, both are named."""
    message = refusal_of(lambda: Config(**values))
    for name in names:
        assert name in message


@pytest.mark.parametrize(
    "listen",
    [
        "tcp:9001",
        "tcp:9001:interface=10.0.0.1",
        "systemd:domain=INET:index=1",
        "axtls:9001:certificate=c:key=k:interface=0.0.0.0",
    ],
)
def test_an_admin_port_for_others_needs_a_token(listen: str) -> None:
    """Where it may be reached from elsewhere, a missing token is said, with what to do; with one it is fine."""
    message = refusal_of(lambda: Config(admin_listen=listen))
    assert message.startswith(f"admin_token is missing; it is needed because admin_listen, {listen!r}, may be reached")
    assert message.endswith("set it in the configuration file, or add interface=127.0.0.1")
    assert Config(admin_listen=listen, admin_token="hush").admin_listen == listen
    assert Config(admin_listen=listen, admin_token_file="/run/token").admin_listen == listen


def test_an_admin_port_of_this_machine_may_have_a_token() -> None:
    """A token is asked for wherever there is one; there is one way to give it."""
    assert Config(admin_token="hush").admin_token == "hush"
    message = refusal_of(lambda: Config(admin_token="hush", admin_token_file="/run/token"))
    assert message == "admin_token and admin_token_file are both set; allowed is one of them"


@pytest.mark.parametrize(
    "text",
    ["tcp:0:interface=127.0.0.1", "axtls:0:certificate=c:key=k:interface=127.0.0.1", "tcp6:port=0:interface=\\:\\:1"],
)
def test_free_ports_differ(text: str) -> None:
    """Port 0 is a different port each time it is asked for, so it may be asked for twice."""
    assert Config(listen=text, admin_listen=text).listen == (text,)


def test_secrets_are_not_shown() -> None:
    """Neither a secret nor a password in a URL appears where a configuration is printed or refused."""
    config = Config(bearer_token="hush", upload_proxy="http://me:hush@proxy")
    assert "hush" not in repr(config)
    for make in (
        lambda: Config(upload_proxy="me:hush@proxy:3128"),
        lambda: Config(upload_proxy="http://me:h@hush@proxy:99999"),
        lambda: Config(upload_proxy=f"http://{'me' * 100}:{'hush' * 20}@proxy/path"),
        lambda: Config(bearer_token="hush hush"),
        lambda: Config(bearer_token="hush", bearer_token_file="x"),
        lambda: Config(uap_server_base="http://me:hush@host"),
    ):
        assert "hush" not in refusal_of(make)
    assert {key.name for key in KEYS.values() if key.secret} == {
        "bearer_token",
        "admin_token",
        "apigeesync_consumer_secret",
    }


def test_long_values_are_shortened() -> None:
    """An error is one line of bearable length, whatever was given."""
    assert len(refusal_of(lambda: Config(sync="x\n" * 10_000))) < 400


def test_choices_are_those_of_the_stations() -> None:
    """The words of the configuration are what the stations understand."""
    assert KEYS["durability"].kind == Choice(tuple(Durability))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("listen", "tcp:9000:interface=127.0.0.1"),
        ("close_grace", "5"),
        ("use_caching", "true"),
        ("max_batch_records", "20000"),
        ("max_body_bytes", "10 MiB"),
        ("store", ""),
    ],
)
def test_defaults_as_text(name: str, expected: str) -> None:
    """Help and documentation show defaults as one would write them."""
    assert expected == KEYS[name].default_text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tcp:80", ("tcp", ["80"], {})),
        ("tcp:80:interface=\\:\\:1", ("tcp", ["80"], {"interface": "::1"})),
        ("unix:/a\\:b\\=c", ("unix", ["/a:b=c"], {})),
        ("unix:address=/a=b", ("unix", [], {"address": "/a=b"})),
        ("x", ("x", [], {})),
    ],
)
def test_parts_of_endpoints(text: str, expected: object) -> None:
    """An endpoint's text is taken apart as Twisted does it."""
    assert expected == split_endpoint(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tcp:80", False),
        ("tcp:80:interface=0.0.0.0", False),
        ("tcp:80:interface=127.1.2.3", True),
        ("tcp:80:127.0.0.1", True),
        ("tcp:80:interface=localhost", True),
        ("tcp:80:interface=example.com", False),
        ("tcp6:80:interface=\\:\\:1", True),
        ("axtls:80:certificate=c:key=k:interface=127.0.0.1", True),
        ("axtls:80:certificate=c:key=k:interface=\\:\\:1", True),
        ("axtls:80:certificate=c:key=k", False),
        ("axtls:80:certificate=c:key=k:interface=\\:\\:", False),
        ("axtls:systemd=0:certificate=c:key=k", False),
        ("tcp6:80", False),
        ("unix:/x", True),
        ("systemd:domain=INET:index=0", False),
        ("systemd:INET:0", False),
        ("systemd:index=0", False),
        ("systemd:domain=UNIX:index=0", True),
        ("systemd:UNIX:name=admin", True),
        ("haproxy:tcp:80:interface=127.0.0.1", False),
        ("ssl:443:privateKey=k:interface=127.0.0.1", True),
        ("ssl:443:privateKey=k", False),
        ("axtls:443:certificate=c:key=k:interface=\\:\\:1", True),
    ],
)
def test_local_endpoints(text: str, expected: bool) -> None:
    """Only what surely cannot be reached from elsewhere is local."""
    assert expected == is_local(text)


def test_file_and_overrides(tmp_path: Path) -> None:
    """The command line's text wins over the file, the file over the defaults."""
    config = loaded(
        tmp_path,
        "collection_interval: 60\nclose_grace: 1\nlisten: [tcp:1, tcp:2]\nbearer_token: t\nuap_server_base:\n",
        close_grace="2",
        listen=["tcp:3"],
    ).config
    assert config == Config(collection_interval=60, close_grace=2, listen=["tcp:3"], bearer_token="t")


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "{}"])
def test_files_that_set_nothing(tmp_path: Path, text: str) -> None:
    """An empty file is a configuration like any other."""
    assert Loaded(Config()) == loaded(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("- a\n", "holds no settings"),
        ("just text\n", "holds no settings"),
        ("5: x\n", "holds no settings"),
        ("listen: tcp:1\nlisten: tcp:2\n", "'listen' is set twice (line 2)"),
        ("listen: {a: 1, a: 2}\n", "'a' is set twice"),
        ("a: [\n", "is not usable YAML"),
        ("a: b: c\n", "is not usable YAML"),
        ("a: *b\n", "is not usable YAML"),
        ("a: !!python/object/apply:os.getcwd []\n", "is not usable YAML"),
        ("a: 2020-13-45\n", "is not usable YAML"),
        ("a: \x07\n", "is not usable YAML"),
        ("{[]: 1}", "is not usable YAML"),
        ("[" * 500, "is not usable YAML"),
        ("a: 1\n---\nb: 2\n", "is not usable YAML"),
        (
            "colection_interval: 5\n",
            "'colection_interval' is no key of the configuration; the nearest is collection_interval",
        ),
        ("api_listen: :9000\n", "'api_listen' is no key"),
        ("log_level: info\n", "'log_level' is no key"),
        ("apidanalytics_colection_interval: 5\n", "the nearest is apidanalytics_collection_interval"),
        ("apigeesync_clusterid: 5\n", "the nearest is apigeesync_cluster_id"),
        (
            "collection_interval: 0\n",
            "collection_interval: 0 is not allowed; allowed is a whole number (s), 1 to 86400",
        ),
        ("collection_interval:\n", "collection_interval: None is not allowed"),
        ("bearer_token: 12345\n", "bearer_token: the given value is not allowed"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, text: str, complaint: str) -> None:
    """A file that cannot be used is refused in one line that says why."""
    assert complaint in refusal_of(lambda: loaded(tmp_path, text))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """A file that is not there is named."""
    message = refusal_of(lambda: load_config(str(tmp_path / "none.yaml"), {}))
    assert message == f"the configuration file {tmp_path}/none.yaml cannot be read: No such file or directory"


def test_unknown_overrides_are_refused() -> None:
    """The command line knows the same keys."""
    assert "the nearest is sync" in refusal_of(lambda: load_config(None, {"sink": "registry"}))


def test_merged_keys_are_not_set_twice(tmp_path: Path) -> None:
    """YAML's merge keys are what they were."""
    text = "<<: &common {close_grace: 1}\ncollection_interval: 60\n"
    assert Config(close_grace=1, collection_interval=60) == loaded(tmp_path, text).config


APID = """
api_listen: 127.0.0.1:9090
api_expvar_path: /expvar
events_buffer_size: 5
log_level: info
data_path: /var/tmp
data_source: "file:%s?_busy_timeout=20000"
db_config_max_conns: 10
local_storage_path: /opt/apid
configcompletefwdp:
apigeesync_bearer_token: token
apigeesync_apid_instance_id: abcdefgh-ijkl-mnop-qrst-uvwxyz123456
apigeesync_consumer_secret: hush
apigeesync_cluster_id: cluster
apidanalytics_data_path: /analytics
apidanalytics_uap_server_base: http://localhost:9000
APIDANALYTICS_COLLECTION_INTERVAL: 60
"""


def test_apids_proxy_is_ours(tmp_path: Path) -> None:
    """It goes by another name there; a password in it is kept, and not shown."""
    result = loaded(tmp_path, "configcompletefwdp: http://me:hush@proxy.example.com:3128\n")
    assert result.config.upload_proxy == "http://me:hush@proxy.example.com:3128"
    assert "hush" not in repr(result)


def test_apid_configurations(tmp_path: Path) -> None:
    """A file made for apid is understood, and one note says what nothing was made of; no secret is in it."""
    result = loaded(tmp_path, APID)
    expected = Config(
        listen="tcp:9090:interface=127.0.0.1",
        local_storage_path="/opt/apid",
        data_path="/analytics",
        bearer_token="token",
        instance_id="abcdefgh-ijkl-mnop-qrst-uvwxyz123456",
        uap_server_base="http://localhost:9000",
        collection_interval=60,
        apigeesync_consumer_secret="hush",
        apigeesync_cluster_id="cluster",
    )
    assert expected == result.config
    (note,) = result.notes
    assert note.endswith(
        "not used here: api_expvar_path, apigeesync_cluster_id, apigeesync_consumer_secret, data_path, data_source,"
        " db_config_max_conns, events_buffer_size, log_level; those that begin with apigeesync_"
        " are for sync: transicator"
    )
    assert "hush" not in note


TRANSICATOR = """
sync: transicator
apigeesync_proxy_server_base: https://edge.test/v1
apigeesync_snapshot_server_base: https://snapshots.test
apigeesync_change_server_base: https://changes.test/
apigeesync_consumer_key: key
apigeesync_consumer_secret: hush
apigeesync_cluster_id: cluster-1
"""


def test_transicator(tmp_path: Path) -> None:
    """With `sync: transicator` the keys of apid's sync plugin are used, and nothing is said of them."""
    result = loaded(tmp_path, TRANSICATOR)
    assert result.notes == ()
    assert result.config.apigeesync_change_server_base == "https://changes.test"
    assert result.config.apigeesync_poll_interval == 120
    assert "hush" not in repr(result.config)


@pytest.mark.parametrize("key", [line.partition(":")[0] for line in TRANSICATOR.strip().splitlines()[1:]])
def test_transicator_needs_its_keys(tmp_path: Path, key: str) -> None:
    """One that is missing is named."""
    text = "".join(line for line in TRANSICATOR.splitlines(keepends=True) if not line.startswith(key))
    message = refusal_of(lambda: loaded(tmp_path, text))
    assert message == f"{key} is missing; it is needed with sync: transicator"


def test_transicator_takes_no_cluster_that_servers_do_not_take(tmp_path: Path) -> None:
    """A selector has lower case letters only; without `sync: transicator` it does not matter."""
    text = TRANSICATOR.replace("cluster-1", "Cluster-1")
    message = refusal_of(lambda: loaded(tmp_path, text))
    assert message.startswith("apigeesync_cluster_id: 'Cluster-1' is not allowed; allowed are lower case letters")
    (note,) = loaded(tmp_path, text, sync="registry").notes
    assert "apigeesync_cluster_id" in note
    assert note.endswith("those that begin with apigeesync_ are for sync: transicator")


@pytest.mark.parametrize(
    "text",
    [
        "close_grace: 1\napidanalytics_close_grace: 2\n",
        "apidanalytics_close_grace: 2\nclose_grace: 1\n",
    ],
)
def test_prefixed_keys_win(tmp_path: Path, text: str) -> None:
    """Of a key with and without prefix the one with it counts, wherever it stands."""
    result = loaded(tmp_path, text)
    assert result.config.close_grace == 2
    assert result.notes[0].endswith("not used here: close_grace")


def test_a_file_with_the_prefix_alone_needs_no_note(tmp_path: Path) -> None:
    """Where everything was used there is nothing to say."""
    assert loaded(tmp_path, "apidanalytics_close_grace: 2\n").notes == ()


def test_our_own_key_wins_over_its_alias(tmp_path: Path) -> None:
    """`listen` is more precise than `api_listen`."""
    text = "apigeesync_cluster_id: c\napi_listen: :1\nlisten: tcp:2\nAPI_LISTEN: :3\n"
    assert loaded(tmp_path, text).config.listen == ("tcp:2",)


def test_one_key_in_two_cases(tmp_path: Path) -> None:
    """Where cases are not told apart, neither of the two could win."""
    text = "apidanalytics_close_grace: 1\nApidAnalytics_close_grace: 2\n"
    assert "are the same key" in refusal_of(lambda: loaded(tmp_path, text))


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (":9000", "tcp:9000"),
        ("127.0.0.1:9000", "tcp:9000:interface=127.0.0.1"),
        ("localhost:0", "tcp:0:interface=localhost"),
        ("[::1]:9000", "tcp:9000:interface=\\:\\:1"),
    ],
)
def test_api_listen(tmp_path: Path, address: str, expected: str) -> None:
    """The listening address of apid becomes an endpoint."""
    assert loaded(tmp_path, f"api_listen: '{address}'\napigeesync_cluster_id: c\n").config.listen == (expected,)


@pytest.mark.parametrize("address", ["9000", "'9000'", "host", "':'", "'::1:9000'", "':65536'", "':x'", "':²'", "[]"])
def test_api_listen_refused(tmp_path: Path, address: str) -> None:
    """What is no listening address is refused by the name that stands in the file."""
    message = refusal_of(lambda: loaded(tmp_path, f"api_listen: {address}\napigeesync_cluster_id: c\n"))
    assert message.startswith("api_listen: ")
    assert message.endswith("is not allowed; allowed is host:port or :port")


values = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text(), max_size=3)


@given(st.sampled_from(sorted(KEYS)), values)
def test_any_value_is_taken_or_refused(key: str, value: object) -> None:
    """Whatever is given for a key, there is a configuration that reads the same again, or a ConfigError of one line."""
    config, message = None, ""
    try:
        config = Config(**{key: value})  # type: ignore[arg-type]
    except ConfigError as exc:
        message = str(exc)
    assert (config is None) == (key in message)
    assert "\n" not in message
    assert config is None or config == replace(config)


@given(st.integers(0, 10**12), st.sampled_from([("kB", 1000), ("MB", 10**6), ("KiB", 1024), ("GiB", 1 << 30), ("", 1)]))
def test_sizes(count: int, unit: tuple[str, int]) -> None:
    """A size with a unit is that many of the unit's bytes."""
    assert count * unit[1] == KEYS["spool_quota_bytes"].read(f"{count}{unit[0]}")
    assert count * unit[1] == KEYS["spool_quota_bytes"].read(f"{count} {unit[0]}".strip())


@pytest.mark.parametrize("workers", [0, 2])
def test_what_workers_can_share(workers: int) -> None:
    """Ports and systemd's sockets; no Unix socket, no foreign TLS, and nobody's feed. What is allowed is said."""
    listen = ["tcp:9000", "axtls:443:certificate=/c:key=/k", "systemd:domain=INET:name=x"]
    assert Config(listen=listen, workers=workers).workers == workers
    for endpoint in ("unix:/run/a.sock", "ssl:443:privateKey=/k:certKey=/c", "tcp6:9000"):
        message = refusal_of(lambda endpoint=endpoint: Config(listen=["tcp:1", endpoint], workers=workers))
        assert message.startswith(f"listen: {endpoint!r} cannot be shared by worker processes")
        assert message.endswith("allowed are tcp:, axtls: and systemd:, or workers: 1")
    message = refusal_of(lambda: Config(sync="none", workers=workers))
    assert message.startswith("sync: none ")
    assert "workers" in message
