"""The lowest versions that may be installed are free of the flaws that reach us through files and servers of others."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
ADVISORIES = [
    ("torch", "2.10.0", "CVE-2026-24747", "`torch.load(weights_only=True)` corrupts memory"),
    ("peft", "0.20.0", "huggingface/peft#3085", "an adapter_config.json names a module to import"),
    ("filelock", "3.20.1", "CVE-2025-68146", "a link in place of the lock file is followed"),
    ("filelock", "3.20.3", "CVE-2026-22701", "the same in SoftFileLock"),
    ("requests", "2.32.4", "CVE-2024-47081", "passwords of .netrc go to another server"),
    ("urllib3", "2.6.3", "CVE-2026-21441", "bodies of redirects are unpacked without a limit"),
    ("urllib3", "2.7.0", "CVE-2026-44432", "the limits on unpacking are passed by"),
    ("jinja2", "3.1.6", "CVE-2025-27516", "a template leaves its sandbox"),
    ("tqdm", "4.66.3", "CVE-2024-34062", "arguments of the command line are evaluated"),
    ("transformers", "4.53.0", "CVE-2025-6638", "a text makes a tokenizer hang"),
]


def lowest_versions() -> Any:
    spec = importlib.util.spec_from_file_location("lowest_versions", ROOT / "scripts" / "lowest_versions.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("name", "fixed", "advisory", "flaw"), ADVISORIES)
def test_no_version_with_a_known_flaw_is_allowed(name, fixed, advisory, flaw):
    allowed = lowest_versions().lowest()[name]
    assert Version(allowed) >= Version(fixed), f"{name} {allowed}: {flaw} ({advisory})"


@pytest.mark.parametrize("stolen", ["2.6.2", "2.6.3"])
def test_versions_that_a_thief_published_are_not_allowed(stolen):
    """GHSA-w37p-236h-pfx3: these steal passwords when they are imported."""
    wanted = {Requirement(text).name: Requirement(text) for text in lowest_versions().requirements()}
    assert not wanted["lightning"].specifier.contains(stolen)
    assert wanted["lightning"].specifier.contains("2.6.1")


def test_every_dependency_states_its_lowest_version():
    found = lowest_versions().lowest()
    assert len(found) >= 25
    assert all(Version(version).release >= (0, 1) for version in found.values())


def test_what_is_imported_for_files_and_servers_is_a_dependency_of_ours():
    """A bound on a package that only others ask for could fall with them."""
    assert {"filelock", "requests", "urllib3", "pooch", "huggingface-hub", "safetensors"} <= set(
        lowest_versions().lowest()
    )


def test_workflows_name_actions_by_their_content():
    """A tag can be moved; a commit cannot."""
    uses = [
        line.split("uses:")[1].split("#")[0].strip()
        for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if "uses:" in line
    ]
    assert uses
    assert [use for use in uses if len(use.rpartition("@")[2]) != 40] == []
