"""Packaging of axcollector; the tools' settings are in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent

setup(
    name="axcollector",
    version="0.1.0",
    description="Collects API-traffic records from gateways and delivers them to object storage, losing none.",
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    # The plugin lies in Twisted's namespace: twisted/ and twisted/plugins/ have no __init__.py.
    packages=[*find_packages(include=["axcollector", "axcollector.*"]), "twisted.plugins"],
    package_data={"axcollector": ["py.typed"], "axcollector.admin": ["static/*", "static/vendor/*"]},
    zip_safe=False,
    install_requires=[
        "Twisted[tls]>=25.5.0",
        "klein>=24.8.0",
        "treq>=24.9.1",
        "msgspec>=0.21.0",
        "PyYAML>=6.0.1",
        # Twisted[tls] brings both; axtls: gives pyOpenSSL what cryptography has read, which older ones do not take.
        "pyOpenSSL>=24.3.0",
        "cryptography>=42.0.0",
        "httptools>=0.7.1",
        "prometheus-client>=0.20",
        # No wheels elsewhere; the standard library's zlib serves there.
        'isal>=1.7.1; platform_machine in "x86_64 AMD64 aarch64 arm64"',
        'zlib-ng>=0.5.1; platform_machine in "x86_64 AMD64 aarch64 arm64"',
    ],
    extras_require={
        # For the store s3://bucket/prefix and for axsigner: its signer and its ways to find credentials, never its I/O.
        "s3": ["botocore>=1.35"],
        # For `python -m benchmarks.ingest --profile`.
        "profile": ["py-spy>=0.4"],
        # For `python -m benchmarks.fuzz`, which does without where there is no wheel.
        "fuzz": ['atheris>=3.0; python_version < "3.14" and sys_platform == "linux"'],
        "test": [
            "botocore>=1.35",
            "coverage>=7.13",
            "duckdb>=1.1",
            "hypothesis>=6.115",
            "mypy>=1.15",
            "mypy-zope>=1.0.9",
            "pytest>=8.3",
            "pytest-twisted>=1.14.3",
            "pytest-xdist>=3.6",
            "ruff>=0.9",
            "schemathesis>=4.1,<5",
            "selenium>=4.25",
            "sphinx>=8.0",
            "types-PyYAML",
        ],
    },
    entry_points={"console_scripts": ["axcollector = axcollector.cli:main"]},
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Framework :: Twisted",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Typing :: Typed",
    ],
)
