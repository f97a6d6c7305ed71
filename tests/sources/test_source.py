"""The step source: what SOURCE may name, conversion once, and clear faults."""

from __future__ import annotations

import os
import shutil
from datetime import timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import io
from jobs.errors import Fault
from jobs.refresh.route import Refresh
from jobs.sources import completejourney, contract, retailrocket, source
from tests.conftest import AS_OF
from tests.sources.test_contract import events, put

LINES = "user_id,item_id,event,timestamp\n1,10,view,1430623510\n2,11,addtocart,1430623515\n"


@pytest.fixture
def shop(tmp_path):
    """A RetailRocket file of two lines, and the name that SOURCE gives it."""
    path = tmp_path / "it's a shop" / "events.csv"
    path.parent.mkdir()
    path.write_text(LINES)
    return path


def test_a_contract_folder_is_used_in_place_and_never_written(night, tmp_path):
    folder = tmp_path / "own"
    put(folder, "events", events())
    before = sorted(folder.rglob("*"))
    folder.chmod(0o555)
    now = night("source", source=str(folder))
    source.run(now, source.Params())
    described = io.read_json(now.staged / "source.json")
    assert (described["folder"], described["adapter"]) == (str(folder), "contract")
    assert sorted(folder.rglob("*")) == before
    tables = pq.read_table(now.staged / "source_tables").to_pylist()
    assert [row["rows"] for row in tables if row["present"]] == [2]
    assert {row["table"] for row in tables} == set(contract.CONTRACT)


def test_the_same_source_has_the_same_digest_and_a_changed_one_another(night, tmp_path):
    digests = []
    for rows in (events(), events(), events().slice(0, 1)):
        put(tmp_path / "own", "events", rows)
        now = night("source", source=str(tmp_path / "own"))
        source.run(now, source.Params())
        digests.append(io.read_json(now.staged / "source.json")["digest"])
    assert digests[0] == digests[1] != digests[2]


def test_a_table_that_the_base_of_a_refresh_had_and_that_is_gone_is_refused(night, lake, tmp_path):
    put(tmp_path / "own", "events", events())
    put(tmp_path / "own", "people", pa.table({"key_type": ["account"], "key": ["1"]}))
    then = night("source", source=str(tmp_path / "own"))
    source.run(then, source.Params())
    then.close(source.Params(), "test")
    lake.publish("source", AS_OF, "test-run")
    hour = night("source", source=str(tmp_path / "own"), as_of=AS_OF + timedelta(hours=1))
    hour.refresh = Refresh(io.label(AS_OF), io.label(AS_OF))
    source.run(hour, source.Params())
    hour.reset()
    shutil.rmtree(tmp_path / "own" / "people")
    with pytest.raises(Fault, match=r"no longer has the table people, which it had at 2017-12-01"):
        source.run(hour, source.Params())
    # A night may do without it.
    hour.refresh = None
    source.run(hour, source.Params())


@pytest.mark.parametrize("name", ["completejorney", "/nowhere/at all", "", "a'b\"; rm -rf /"])
def test_an_unknown_name_is_a_fault_that_lists_the_named_sources(name, tmp_path):
    with pytest.raises(Fault) as fault:
        source.prepare(name, tmp_path)
    for known in source.ADAPTERS.values():
        assert known in str(fault.value)


def test_an_object_store_is_refused(tmp_path):
    with pytest.raises(Fault, match="object store"):
        source.prepare("s3://bucket/events", tmp_path)


@pytest.mark.parametrize("name", ["online_retail", "retailrocket", "retailrocket:"])
def test_an_adapter_that_needs_a_place_says_so(name, tmp_path):
    with pytest.raises(Fault, match="a folder that you name"):
        source.prepare(name, tmp_path)


def test_a_conversion_is_made_once_and_again_when_a_file_changed(shop, tmp_path):
    name = f"retailrocket:{shop}"
    first = source.prepare(name, tmp_path / "lake")
    stamp = os.stat(first.folder / "conversion.json").st_mtime_ns
    again = source.prepare(name, tmp_path / "lake")
    assert again == first
    assert os.stat(first.folder / "conversion.json").st_mtime_ns == stamp
    shop.write_text(LINES + "3,12,transaction,1430623520\n")
    changed = source.prepare(name, tmp_path / "lake")
    assert changed.folder != first.folder
    assert changed.notes["events"] == 3


def test_a_suspected_conversion_is_made_again_with_the_same_rows(shop, tmp_path):
    name = f"retailrocket:{shop}"
    first = source.prepare(name, tmp_path)
    digest = contract.check(first.folder)
    (first.folder / "events" / "part-00000.parquet").write_bytes(b"broken")
    second = source.prepare(name, tmp_path, reuse=False)
    assert contract.check(second.folder) == digest


def test_a_conversion_that_dies_leaves_nothing_that_is_taken_for_whole(shop, tmp_path, monkeypatch):
    write = retailrocket.writing.write

    def dies(*arguments, **columns):
        write(*arguments, **columns)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(retailrocket.writing, "write", dies)
        with pytest.raises(KeyboardInterrupt):
            source.prepare(f"retailrocket:{shop}", tmp_path / "lake")
    (tmp_path / "lake" / "retailrocket" / ".building-killed").mkdir()
    assert source.prepare(f"retailrocket:{shop}", tmp_path / "lake").notes["events"] == 2
    assert len(list((tmp_path / "lake" / "retailrocket").iterdir())) == 1


def test_a_lake_that_cannot_be_written_is_a_fault(shop, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Fault, match="cannot be written"):
        source.prepare(f"retailrocket:{shop}", tmp_path / "file")


def test_bad_csv_files_are_named_at_once(shop, tmp_path):
    (shop.parent / "events-2.csv").write_text("user_id,timestamp\n1,2\n")
    (shop.parent / "events-3.csv.gz").write_bytes(b"\x1f\x8b\x08\x00truncated")
    with pytest.raises(Fault) as fault:
        source.prepare(f"retailrocket:{shop.parent}", tmp_path / "lake")
    assert "events-2.csv lacks the columns item_id, event" in str(fault.value)
    assert "events-3.csv.gz cannot be read" in str(fault.value)


def test_broken_files_of_an_installed_package_are_the_packages_fault(tmp_path):
    for name in completejourney.FILES:
        (tmp_path / f"{name}.parquet").write_bytes(b"PAR1 cut off")
    with pytest.raises(Fault, match="the files of completejourney cannot be read"):
        source.prepare(f"completejourney:{tmp_path}", tmp_path / "lake")
    assert not list((tmp_path / "lake" / "completejourney").iterdir())


def test_a_file_with_a_header_alone_gives_an_empty_table(tmp_path):
    (tmp_path / "events.csv").write_text("user_id,item_id,event,timestamp\n")
    made = source.prepare(f"retailrocket:{tmp_path}/events.csv", tmp_path / "lake")
    assert contract.check(made.folder)[0].rows == 0
