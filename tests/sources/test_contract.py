"""The source contract: every fault at once, and every plain variant read alike."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from jobs.errors import Fault
from jobs.sources import contract, in_memory

NOON = datetime(2017, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
US = pa.timestamp("us", tz="UTC")


def events(**changes: pa.Array | None) -> pa.Table:
    """Two purchases, with columns replaced, added, or (None) left out."""
    columns = {
        "event_id": pa.array(["e1", "e2"]),
        "event_time": pa.array([NOON, NOON + timedelta(hours=1)], US),
        "key_type": pa.array(["account", "account"]),
        "key": pa.array(["900", "901"]),
        "event_type": pa.array(["purchase", "purchase"]),
        "item_id": pa.array(["a", "b"]),
    }
    columns.update(changes)
    return pa.table({name: value for name, value in columns.items() if value is not None})


def put(folder: Path, table: str, rows: pa.Table, name: str = "part-0.parquet", **options) -> Path:
    path = folder / table / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows, path, **options)
    return path


def rows(session, folder: Path, table: str = "events", only: list[str] | None = None) -> list[dict]:
    """The rows of a table in the order of its first column, which Spark and Arrow read alike."""
    frame = contract.read(session, folder, table, only)
    assert frame.columns == contract.schema(table).names
    found = frame.orderBy(frame.columns[0]).toArrow()
    read = in_memory.read(folder, table, only)
    assert read.schema == contract.schema(table)
    read.validate(full=True)
    order = pc.sort_indices(read, sort_keys=[(frame.columns[0], "ascending", "at_start")])
    assert read.take(order).to_pylist() == found.to_pylist()
    return found.to_pylist()


# --- faults ----------------------------------------------------------------------------------
def test_a_missing_folder_is_one_fault_that_says_what_to_give(tmp_path):
    with pytest.raises(Fault, match=r"there is no folder .*nowhere.*events/"):
        contract.check(tmp_path / "nowhere")


def test_every_fault_of_every_table_is_named_at_once(tmp_path):
    put(tmp_path, "events", events(item_id=None, event_time=pa.array(["noon", "one"]),
                                   key=pa.array([None, None], pa.string())))  # fmt: skip
    put(tmp_path, "items", pa.table({"item_id": pa.array([1, 2]), "price": pa.array(["1", "2"])}))
    put(tmp_path, "promotions", pa.table({"item_id": ["a"], "kind": ["mailer"]}))
    with pytest.raises(Fault) as fault:
        contract.check(tmp_path)
    text = str(fault.value)
    for sentence in (
        "events.item_id is missing",
        "events.event_time is string, expected timestamp",
        "events.key is null in every row",
        "items.item_id is int64, expected string",
        "items.price is string, expected double",
        "promotions.starts is missing",
        "promotions.ends is missing",
        "part-0.parquet",
    ):
        assert sentence in text


def test_a_source_without_events_names_the_table_and_its_place(tmp_path):
    put(tmp_path, "items", pa.table({"item_id": ["a"]}))
    with pytest.raises(Fault, match=r"the table events is missing .*events/\*\.parquet"):
        contract.check(tmp_path)
    (tmp_path / "events").mkdir()
    with pytest.raises(Fault, match="the table events holds no Parquet file"):
        contract.check(tmp_path)


def test_a_folder_of_an_optional_table_without_a_file_is_no_absent_table(session, tmp_path):
    put(tmp_path, "events", events())
    for name in ("people", "identity_links"):
        (tmp_path / name).mkdir()
    (tmp_path / "people" / "_SUCCESS").touch()
    with pytest.raises(Fault) as fault:
        contract.check(tmp_path)
    for name in ("people", "identity_links"):
        assert f"the table {name} holds no Parquet file" in str(fault.value)
    with pytest.raises(Fault, match="write it, or delete the folder to do without it"):
        contract.read(session, tmp_path, "people")


@pytest.mark.parametrize("keep", [0, 3, 200, -9])
def test_a_truncated_file_is_named_by_its_path(tmp_path, keep):
    put(tmp_path, "events", events())
    bad = put(tmp_path, "events", events(), "part-1.parquet")
    bad.write_bytes(bad.read_bytes()[:keep])
    with pytest.raises(Fault, match=r"table events cannot be read.*part-1\.parquet"):
        contract.check(tmp_path)


def test_a_wrong_type_in_one_file_of_many_is_found(tmp_path):
    put(tmp_path, "events", events(), "event_date=2017-03-01/part-0.parquet")
    put(tmp_path, "events", events(value=pa.array(["1", "2"])), "event_date=2017-03-02/p.parquet")
    with pytest.raises(Fault, match=r"events\.value is string.*event_date=2017-03-02/p\.parquet"):
        contract.check(tmp_path)


# --- facts -----------------------------------------------------------------------------------
def test_facts_count_each_table_and_their_digest_follows_the_content(tmp_path):
    put(tmp_path, "events", events())
    put(tmp_path, "items", pa.table({"item_id": pa.array([], pa.string())}))
    facts = {fact.table: fact for fact in contract.check(tmp_path)}
    assert set(facts) == set(contract.CONTRACT)
    assert (facts["events"].rows, facts["events"].files) == (2, 1)
    assert (facts["items"].present, facts["items"].rows) == (True, 0)
    assert not facts["people"].present
    put(tmp_path, "events", events(item_id=pa.array(["a", "c"])))
    assert contract.check(tmp_path)[0].digest != facts["events"].digest


# --- reading ---------------------------------------------------------------------------------
def test_an_absent_optional_table_is_none_and_an_empty_one_is_empty(session, tmp_path):
    put(tmp_path, "events", events())
    put(tmp_path, "items", pa.table({"item_id": pa.array([], pa.string())}))
    assert contract.read(session, tmp_path, "people") is None
    assert in_memory.read(tmp_path, "people") is None
    assert rows(session, tmp_path, "items") == []


def test_missing_optional_columns_are_null_and_extra_ones_kept_out(session, tmp_path):
    odd = pa.array([1, 2], pa.time64("ns"))  # a type that Spark cannot read
    extra = {"odd": odd, "KEY": odd}
    put(tmp_path, "events", events(**extra), "event_date=2017-03-01/part-0.parquet")
    first = rows(session, tmp_path)[0]
    assert first["event_id"] == "e1"
    assert first["event_time"] == NOON
    assert first["revision"] is None
    assert first["value"] is None


@pytest.mark.parametrize("zone", [None, "UTC", "Europe/London"])
@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_times_in_every_unit_with_or_without_a_zone_are_utc(session, tmp_path, unit, zone):
    kind = pa.timestamp(unit, tz=zone)
    moments = pa.array([NOON, NOON + timedelta(hours=1)], US)
    times = moments.cast(kind, safe=False) if zone else moments.cast(pa.int64())
    if not zone:
        times = times.cast(pa.timestamp("us")).cast(kind, safe=False)
    put(tmp_path, "events", events(event_time=times))
    expected = NOON.replace(microsecond=123000) if unit == "ms" else NOON
    assert rows(session, tmp_path)[0]["event_time"] == expected


def test_times_as_int96_are_utc(session, tmp_path):
    put(tmp_path, "events", events(), use_deprecated_int96_timestamps=True)
    assert rows(session, tmp_path)[0]["event_time"] == NOON


def test_plain_variants_of_a_type_in_different_files_are_read_alike(session, tmp_path):
    put(tmp_path, "events", events(
        item_id=pa.array(["a", "b"]).dictionary_encode(),
        key=pa.array(["1", "2"], pa.large_string()),
        revision=pa.array([1, 2], pa.int64()), quantity=pa.array([1, 2], pa.uint8()),
        event_time=pa.array([NOON, NOON], pa.timestamp("ms", tz="UTC")),
    ), "a.parquet")  # fmt: skip
    put(tmp_path, "events", events(
        event_id=pa.array(["e3", "e4"]), revision=pa.array([1, 2], pa.uint16()),
        quantity=pa.array([1, 2], pa.decimal128(9, 2)), value=pa.array([1.5, 2.5], pa.float32()),
        event_time=pa.array([NOON, NOON], pa.timestamp("ns", tz="UTC")),
    ), "b.parquet")  # fmt: skip
    got = rows(session, tmp_path)
    assert [row["revision"] for row in got] == [1, 2, 1, 2]
    assert [row["quantity"] for row in got] == [1.0, 2.0, 1.0, 2.0]
    assert [row["value"] for row in got] == [None, None, 1.5, 2.5]


def test_an_optional_column_null_throughout_may_carry_any_type(session, tmp_path):
    put(tmp_path, "events", events(value=pa.array([None, None], pa.string()),
                                   region=pa.array([None, None], pa.float64()),
                                   quantity=pa.nulls(2)))  # fmt: skip
    first = rows(session, tmp_path)[0]
    assert (first["value"], first["region"], first["quantity"]) == (None, None, None)


def test_lists_and_maps_keep_the_difference_between_empty_and_null(session, tmp_path):
    put(tmp_path, "events", events())
    put(tmp_path, "people", pa.table({
        "key_type": ["account"] * 2, "key": ["1", "2"],
        "consents": pa.array([[], None], pa.list_(pa.null())),
        "restrictions": pa.array([["alcohol"], None], pa.large_list(pa.large_string())),
        "segment": pa.array(["a", None]).dictionary_encode(),
        "attributes": pa.array([[("age", "45")], None], pa.map_(pa.string(), pa.string())),
    }))  # fmt: skip
    second, first = sorted(rows(session, tmp_path, "people"), key=lambda row: row["key"])[::-1]
    assert first["consents"] == []
    assert second["consents"] is None
    assert first["restrictions"] == ["alcohol"]
    assert dict(first["attributes"]) == {"age": "45"}


def test_hostile_texts_are_carried_as_they_are(session, tmp_path):
    hostile = ["../../etc/passwd", "a'b\"c\n;DROP TABLE x\x00\u202e"]
    put(tmp_path, "events", events(item_id=pa.array(hostile)))
    assert [row["item_id"] for row in rows(session, tmp_path)] == hostile


def test_ids_that_are_not_utf8_stay_different_and_become_readable(session, tmp_path):
    raw = pa.array([b"caf\xe9", b"caf\xe8"], pa.binary())
    broken = pa.Array.from_buffers(pa.string(), 2, raw.buffers())
    put(tmp_path, "events", events(item_id=broken, channel=broken))
    got = rows(session, tmp_path)
    assert [row["item_id"] for row in got] == ["caf\ufffd~636166e9", "caf\ufffd~636166e8"]
    assert got[0]["channel"] == "caf\ufffd"


def test_a_folder_with_special_characters_is_read(session, tmp_path):
    folder = tmp_path / "it's [a] {b,c} * 100% söurce"
    put(folder, "events", events(), "event_date=2017-03-01/part 0.parquet")
    put(tmp_path / "it's a b söurce", "events", events())
    assert len(rows(session, folder)) == 2


def test_dates_are_the_midnight_of_a_promotion(session, tmp_path):
    put(tmp_path, "events", events())
    day = pa.array([date(2017, 3, 1)])
    put(tmp_path, "promotions", pa.table({
        "item_id": ["a"], "kind": ["mailer"], "starts": day, "ends": day,
    }))  # fmt: skip
    assert rows(session, tmp_path, "promotions")[0]["starts"] == datetime(2017, 3, 1, tzinfo=UTC)


# --- rules as YAML ---------------------------------------------------------------------------
def test_rules_may_be_yaml(session, tmp_path):
    put(tmp_path, "events", events())
    (tmp_path / "rules.yaml").write_text(
        "- {rule_id: r1, kind: ban, scope: 123, starts: 2017-01-01, reason: recalled}\n"
        "- {rule_id: r2, kind: boost, scope: FUEL, strength: 2, reason: summer}\n"
    )
    assert [fact.rows for fact in contract.check(tmp_path) if fact.table == "rules"] == [2]
    first, second = rows(session, tmp_path, "rules")
    assert (first["scope"], first["starts"]) == ("123", datetime(2017, 1, 1, tzinfo=UTC))
    assert second["strength"] == 2.0


def test_faults_in_yaml_rules_are_named_at_once(tmp_path):
    put(tmp_path, "events", events())
    (tmp_path / "rules.yaml").write_text("- {rule_id: r1, kind: ban, strength: much}\n")
    with pytest.raises(Fault) as fault:
        contract.check(tmp_path)
    for part in ("rules.scope is missing", "rules.reason is missing", "rules.strength is 'much'"):
        assert part in str(fault.value)


def test_texts_of_yaml_rules_are_taken_as_typed(session, tmp_path):
    put(tmp_path, "events", events())
    (tmp_path / "rules.yaml").write_text(
        "- {rule_id: 007, kind: ban, scope: 0123, region: no, surface: null, reason: yes}\n"
    )
    row = rows(session, tmp_path, "rules")[0]
    assert [row[name] for name in ("rule_id", "scope", "region", "surface", "reason")] == [
        "007", "0123", "no", None, "yes",
    ]  # fmt: skip


def test_a_misspelt_name_in_yaml_rules_is_refused(tmp_path):
    put(tmp_path, "events", events())
    (tmp_path / "rules.yaml").write_text(
        "- {rule_id: r1, kind: ban, scope: a, reason: b, end: 2017-01-01}\n"
        "- {rule_id: r2, kind: [ban], scope: a, reason: b}\n"
    )
    with pytest.raises(
        Fault, match=r"rules.end in rule 1 of .* is no column; there are ends"
    ) as one:
        contract.check(tmp_path)
    assert "rules.kind is ['ban'] in rule 2" in str(one.value)


def test_rules_in_yaml_and_in_parquet_at_once_are_refused(tmp_path):
    put(tmp_path, "events", events())
    put(tmp_path, "rules", contract.schema("rules").empty_table())
    (tmp_path / "rules" / "rules.yaml").write_text(
        "- {rule_id: r, kind: ban, scope: a, reason: b}\n"
    )
    with pytest.raises(Fault, match=r"rules are in .* and in Parquet files; keep one"):
        contract.check(tmp_path)


def test_a_file_has_a_mark_of_its_own_that_follows_its_content_and_its_writing(tmp_path):
    for number, value in enumerate((1.0, 2.0)):
        put(tmp_path, "events", events(value=pa.array([value, value])), f"part-{number}.parquet")

    def marks() -> dict[str, str]:
        return next(one for one in contract.check(tmp_path) if one.table == "events").marks

    before = marks()
    assert set(before) == {"events/part-0.parquet", "events/part-1.parquet"}
    assert marks() == before
    # Of one size and footer: but for the time of its writing nothing tells it from the other.
    path = tmp_path / "events" / "part-1.parquet"
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1))
    after = marks()
    assert after["events/part-0.parquet"] == before["events/part-0.parquet"]
    assert after["events/part-1.parquet"] != before["events/part-1.parquet"]


def test_only_the_files_asked_for_are_read_and_one_that_is_gone_is_named(session, tmp_path):
    for number in range(3):
        put(
            tmp_path,
            "events",
            events(event_id=pa.array([f"e{number}", None])),
            f"p{number}.parquet",
        )
    read = rows(session, tmp_path, "events", ["events/p0.parquet", "events/p2.parquet"])
    assert sorted(filter(None, (row["event_id"] for row in read))) == ["e0", "e2"]
    assert contract.read(session, tmp_path, "events", []) is None
    assert in_memory.read(tmp_path, "events", []) is None
    names = ["events/p0.parquet", "events/p9.parquet"]
    for read in (partial(contract.read, session), in_memory.read):
        with pytest.raises(Fault, match=r"events/p9\.parquet is gone since this run began"):
            read(tmp_path, "events", names)


def test_texts_that_are_no_utf8_are_mended_alike(session, tmp_path):
    put(tmp_path, "events", events())
    some = [
        b"caf\xe9", b"\xff\xfe", b"\xe2\x82", b"\xe2\x82x", b"\xf0\x9f\x98", b"\xed\xa0\x80",
        b"\xc0\xaf", b"\xf4\x90\x80\x80", b"plain", "söurce".encode(), b"",
    ]  # fmt: skip
    texts = pa.Array.from_buffers(pa.string(), len(some), pa.array(some, pa.binary()).buffers())
    size = np.arange(len(some) + 1, dtype=np.int32)
    put(tmp_path, "people", pa.table({
        "key_type": pa.array([f"{n:02}" for n in range(len(some))]), "key": texts, "region": texts,
        "consents": pa.ListArray.from_arrays(size, texts),
        "attributes": pa.MapArray.from_arrays(size, texts, texts),
    }))  # fmt: skip
    read = rows(session, tmp_path, "people")
    assert len({row["key"] for row in read}) == len(some)
    assert [len(row["attributes"]) for row in read] == [0] * 8 + [1] * 3


def test_numbers_of_every_type_are_read_alike(session, tmp_path):
    random = np.random.default_rng(1)
    many = {
        "a": pa.array([Decimal(int(n)).scaleb(-3) for n in random.integers(-(10**9), 10**9, 500)]),
        "b": pa.array(random.normal(size=500).astype(np.float32)),
        "c": pa.array(random.integers(-(2**63), 2**63 - 1, 500)),
        "d": pa.array(random.normal(size=500)),
    }
    for name, values in many.items():
        ids = pa.array([f"{name}{n:03}" for n in range(500)])
        whole = {column: pa.repeat("x", 500) for column in ("key_type", "key", "event_type")}
        whole |= {
            "event_id": ids,
            "item_id": ids,
            "event_time": pa.repeat(pa.scalar(NOON, US), 500),
        }
        put(tmp_path, "events", pa.table(whole | {"value": values}), f"{name}.parquet")
    assert len(rows(session, tmp_path)) == 2_000


def test_a_row_of_a_group_is_found_and_of_other_groups_nothing_is_read(tmp_path):
    moments = [NOON + timedelta(days=n) for n in range(6)]
    found = events(
        event_id=pa.array([f"e{n}" for n in range(6)]), item_id=pa.array(list("abcdef")),
        key=pa.array(list("112233")), key_type=pa.repeat("account", 6),
        event_type=pa.repeat("view", 6), event_time=pa.array(moments, US),
    )  # fmt: skip
    put(tmp_path, "events", found, row_group_size=2)
    asked: list[int] = []

    def holds(part: pa.Table) -> pa.Array:
        asked.append(part.num_rows)
        assert part.schema.names == ["event_time"]
        return pc.equal(part["event_time"], pa.scalar(moments[3], US))

    where = in_memory.Where(["event_time"], holds)
    read = in_memory.read(tmp_path, "events", columns=["event_id", "value"], where=where)
    assert read.to_pylist() == [{"event_id": "e3", "value": None}]
    assert asked == [2, 2, 2]
