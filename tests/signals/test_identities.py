"""Which keys are one person, under which id, as of when; and which are rather kept apart."""

from __future__ import annotations

from datetime import timedelta

import pyarrow as pa
import pytest

from jobs import io
from jobs.signals import identities, resolution
from jobs.sources import contract
from tests.conftest import AS_OF
from tests.signals.graphs import (
    DAY,
    TIGHT,
    counted,
    event,
    in_order,
    link,
    outcomes,
    persons,
    random_shop,
)  # fmt: skip


# --- who is whom -----------------------------------------------------------------------------
def test_a_person_is_named_after_the_key_that_was_seen_first(shop):
    made = shop(
        [event("cookie:c", 9), event("account:1", 5), event("device:d", 7), event("cookie:x", 1)],
        [link("account:1", "device:d"), link("cookie:c", "device:d")],
    )
    found = made.run()
    assert persons(found) == {
        "cookie:c": "cookie:c", "device:d": "cookie:c", "account:1": "cookie:c",
        "cookie:x": "cookie:x",
    }  # fmt: skip
    assert {r["person_id"]: r["keys"] for r in found["persons"]} == {"cookie:c": 3, "cookie:x": 1}
    assert made.notes["engine"] == "array"
    assert made.notes["mode"] == "full"


def test_two_accounts_are_never_joined_by_a_shared_device(shop):
    found = shop(
        [event("account:1", 3), event("account:2", 2), event("device:s", 4)],
        [link("account:1", "device:s"), link("account:2", "device:s")],
    ).run()
    assert persons(found) == {name: name for name in ("account:1", "account:2", "device:s")}
    assert {r["component"] for r in found["identities"]} == {"device:s"}
    assert {r["detail"] for r in found["identity_links"]} == {
        "device:s joins 2 keys of type account; at most 1"
    }
    assert counted(found)["link: too_many_of_type"] == 2


def test_a_link_waits_until_an_event_or_a_person_names_both_ends(shop):
    made = shop(
        [event("account:1", 30), event("device:d", 5)],
        [link("account:1", "device:d", 20), link("account:1", "cookie:p", 20),
         link("account:1", "cookie:ghost", 20)],
        [{"key_type": "cookie", "key": "p"}],
    )  # fmt: skip
    early = made.run(AS_OF - 10 * DAY)
    assert outcomes(early) == {
        "1-d": "unknown_key", "1-p": "admitted", "1-ghost": "unknown_key",
    }  # fmt: skip
    late = made.run(incremental_links=0)
    assert outcomes(late) == {"1-d": "admitted", "1-p": "admitted", "1-ghost": "unknown_key"}
    assert set(persons(late).values()) == {"account:1"}
    assert made.notes["mode"] == "incremental"


def test_a_hash_that_exists_only_to_link_joins_what_it_links_and_is_a_key(shop):
    found = shop(
        [event("account:1", 3), event("cookie:c", 2)],
        [link("account:1", "email_hash:h", source="email_click"),
         link("cookie:c", "email_hash:h", source="email_click")],
    ).run()  # fmt: skip
    assert set(persons(found)) == {"account:1", "cookie:c", "email_hash:h"}
    assert set(persons(found).values()) == {"account:1"}


def test_a_household_groups_persons_and_never_merges_them(shop):
    home = {"source": "household", "confidence": 0.8}
    made = shop(
        [event(f"account:{n}", 9 - n) for n in range(8)],
        [link("account:0", "account:1", **home), link("account:1", "account:2", **home),
         link("account:3", "account:9", **home), link("account:3", "account:4", source="household",
                                                      confidence=0.2),
         *[link("account:5", f"account:{n}", **home) for n in (4, 6, 7)]],
    )  # fmt: skip
    found = made.run(max_persons_per_household=3)
    assert all(key == person for key, person in persons(found).items())
    assert {r["key"]: r["household_id"] for r in found["identities"]} == {
        "0": "account:0", "1": "account:0", "2": "account:0",
        **{str(n): f"account:{n}" for n in range(3, 8)},
    }  # fmt: skip
    assert outcomes(found) == {
        "0-1": "household", "1-2": "household", "3-9": "unknown_key", "3-4": "below_threshold",
        "4-5": "household_too_large", "5-6": "household_too_large", "5-7": "household_too_large",
    }  # fmt: skip
    assert "4 persons in one household; at most 3" in {r["detail"] for r in found["identity_links"]}
    assert {r["person_id"]: r["household_id"] for r in found["persons"]}["account:2"] == "account:0"


def test_types_and_keys_with_colons_never_share_an_id():
    types, keys = pa.array(["a:b", "a", "a%3Ab"]), pa.array(["c", "b:c", "c"])
    ids = resolution.key_ids(pa.chunked_array([types]), pa.chunked_array([keys])).to_pylist()
    assert ids == ["a%3Ab:c", "a:b:c", "a%253Ab:c"]


def test_without_links_everybody_is_alone(shop):
    made = shop([event("account:1", 2), event("cookie:c", 1)], None)
    assert persons(made.run()) == {"account:1": "account:1", "cookie:c": "cookie:c"}
    again = made.run(AS_OF + DAY)
    assert again["identity_links"] == again["identity_changes"] == []


@pytest.mark.parametrize("how", ["array", "spark"])
def test_links_of_a_crowd_to_one_key_leave_it_and_them_apart(shop, how):
    crowd = 20_000
    people = [f"account:{number:05d}" for number in range(crowd)]
    made = shop(
        [event(key, 9.0) for key in [*people, "device:kiosk"]],
        [link(key, "device:kiosk", 5.0) for key in people]
        + [link(key, people[0], 5.0, source="household") for key in people[1:]],
    )  # fmt: skip
    found = made.run(engine=how)
    assert made.notes["engine"] == how
    assert len({row["person_id"] for row in found["identities"]}) == crowd + 1
    assert len({row["household_id"] for row in found["identities"]}) == crowd + 1
    outcomes = counted(found)
    assert outcomes["link: too_many_of_type"] == crowd
    assert outcomes["link: household_too_large"] == crowd - 1
    assert outcomes[f"engine: {how}"] == 1


def test_who_logs_in_under_another_name_than_account_is_somebody_too(shop):
    """Two members on one device stay two, as two accounts do."""
    for kind in ("member", "user", "customer"):
        found = shop(
            [event(key, 9.0) for key in (f"{kind}:1", f"{kind}:2", "device:d")],
            [link(f"{kind}:{number}", "device:d", 5.0) for number in (1, 2)],
        ).run()
        assert len(set(persons(found).values())) == 3, kind
        assert (counted(found)["over_cap"], counted(found)["without_accounts"]) == (0, 0)


def test_merges_where_no_key_founds_persons_are_told(shop):
    found = shop(
        [event(key, 9.0) for key in ("subscriber:1", "subscriber:2", "device:d")],
        [link(f"subscriber:{number}", "device:d", 5.0, source="crm") for number in (1, 2)],
    ).run()
    assert (counted(found)["without_accounts"], counted(found)["unnamed_types"]) == (2, 1)
    named = shop(
        [event(key, 9.0) for key in ("subscriber:1", "subscriber:2", "device:d")],
        [link(f"subscriber:{number}", "device:d", 5.0) for number in (1, 2)],
    ).run(max_joined={"subscriber": 1}, max_of_type={"subscriber": 1})
    assert len(set(persons(named).values())) == 3
    assert (counted(named)["without_accounts"], counted(named)["unnamed_types"]) == (0, 0)


def test_logins_of_a_type_that_nobody_named_join_nothing_beside_accounts_that_do(shop):
    found = shop(
        [event(key, 9.0) for key in ("subscriber:1", "subscriber:2", "account:3", "device:d")],
        [link(key, "device:d", 5.0) for key in ("subscriber:1", "subscriber:2", "account:3")],
    ).run()
    assert persons(found)["device:d"] == persons(found)["account:3"]
    assert len(set(persons(found).values())) == 3
    assert counted(found)["link: no_account"] == 2


@pytest.mark.parametrize("kind", ["email_hash", "phone", "loyalty_card"])
@pytest.mark.parametrize("shared", ["cookie", "device"])
def test_a_familys_tablet_does_not_merge_its_addresses_and_cards(shop, kind, shared):
    keys = ("account:mum", f"{shared}:tablet", f"{shared}:own")
    found = shop(
        [event(key, 9.0) for key in (*keys, f"{kind}:mum", f"{kind}:dad")],
        [
            link("account:mum", f"{kind}:mum", 8.0, source="registration"),
            link(f"{shared}:own", f"{kind}:dad", 8.0, source="checkout"),
            *(link(f"{shared}:tablet", f"{kind}:{who}", 5.0, source="checkout")
              for who in ("mum", "dad")),
        ],
    ).run()  # fmt: skip
    of = persons(found)
    assert of["account:mum"] == of[f"{kind}:mum"] != of[f"{shared}:tablet"]
    assert of[f"{shared}:own"] == of[f"{kind}:dad"] != of["account:mum"]
    assert counted(found)["link: too_many_of_type"] == 2


# --- as of -----------------------------------------------------------------------------------
def test_a_login_after_the_cut_does_not_show_at_the_cut(shop):
    made = shop(
        [event("cookie:c", 20), event("account:1", 15), event("device:late", 2)],
        [link("cookie:c", "account:1", 5), link("cookie:c", "device:late", 1)],
    )
    made.run()
    night = made.night(step="ranker")
    before = identities.at(night, AS_OF - 10 * DAY)
    assert not before.same_as_night
    assert known(before) == {"cookie:c": "cookie:c", "account:1": "account:1"}
    assert before.logins.count() == 0
    between = identities.at(night, AS_OF - 4 * DAY)
    assert known(between) == {"cookie:c": "cookie:c", "account:1": "cookie:c"}
    assert between.logins.count() == 1
    assert between.persons.toArrow()["keys"].to_pylist() == [2]
    assert not between.same_as_night
    now = identities.at(night, AS_OF)
    assert now.same_as_night
    assert set(known(now).values()) == {"cookie:c"}
    assert now.logins.count() == 2


def test_a_cut_since_which_no_link_changed_is_the_night_without_later_keys(shop):
    made = shop(
        [event("cookie:c", 20), event("account:1", 15), event("account:2", 2)],
        [link("cookie:c", "account:1", 12)],
    )
    made.run()
    found = identities.at(made.night(step="ranker"), AS_OF - 5 * DAY)
    assert found.same_as_night
    assert known(found) == {"cookie:c": "cookie:c", "account:1": "cookie:c"}


def test_a_cut_gives_what_a_night_of_that_time_gave(engine, shop, tmp_path):
    rows = random_shop(5, worlds=15)
    made, cut = shop(*rows.values()), AS_OF - 12 * DAY
    then = made.run(cut, **TIGHT)
    made.run(AS_OF, **TIGHT)
    found = identities.at(made.night(AS_OF, "ranker", **TIGHT), cut)
    assert in_order(found.identities.toArrow().to_pylist()) == in_order(then["identities"])
    assert in_order(found.persons.select(*then["persons"][0]).toArrow().to_pylist()) == in_order(
        then["persons"]
    )


def known(found: identities.Known) -> dict[str, str]:
    return persons({"identities": found.identities.toArrow().to_pylist()})


# --- bad input -------------------------------------------------------------------------------
def test_what_cannot_be_a_link_is_counted(shop):
    made = shop(
        [event("account:1", 3), event("cookie:c", 2)],
        [
            link("account:1", "cookie:c", key_a=" "),
            link("account:1", "cookie:c", key_type_b=None),
            link("account:1", "cookie:c", source=None),
            link("account:1", "cookie:c", observed_time=None),
            link("account:1", "cookie:c", -1),
            link("account:1", "cookie:c", received_time=AS_OF - 12 * DAY),
            link("account:1", "cookie:c", -3, source="email_click", received_time=AS_OF - DAY),
        ],
    )
    found = made.run()
    counts = counted(found)
    assert {name: counts[f"rows: {name}"] for name in (
        "received", "no_key", "no_source", "no_time", "not_yet_known", "received_before_observed",
        "observed_after_as_of",
    )} == {
        "received": 7, "no_key": 2, "no_source": 1, "no_time": 1, "not_yet_known": 1,
        "received_before_observed": 2, "observed_after_as_of": 1,
    }  # fmt: skip
    assert {r["source"]: r["outcome"] for r in found["identity_links"]} == {
        "login": "admitted", "email_click": "observed_in_the_future",
    }  # fmt: skip


def test_times_with_and_without_a_zone_are_equal_instants(shop):
    made = shop([event("account:1", 30), event("cookie:c", 20), event("device:d", 20)], [])
    moment = AS_OF - timedelta(minutes=30)  # 01:30 at +02:00, the night's own day there
    rows = [link("account:1", "cookie:c"), link("account:1", "device:d")]
    tables = [
        pa.Table.from_pylist([row], contract.schema("identity_links")).drop(["observed_time"])
        for row in rows
    ]
    times = (
        pa.array([moment], pa.timestamp("us", tz="+02:00")),
        pa.array([moment.replace(tzinfo=None)], pa.timestamp("ns")),
    )
    for part, (table, time) in enumerate(zip(tables, times, strict=True)):
        io.write_arrow(
            made.folder / "identity_links", table.append_column("observed_time", time), part + 1
        )
    found = made.run()
    assert {r["known_time"] for r in found["identity_links"]} == {moment}
    assert set(persons(found).values()) == {"account:1"}


def test_cycles_are_counted_and_harm_nothing(shop):
    found = shop(
        [event(f"cookie:{n}", 5 - n) for n in range(3)],
        [link(f"cookie:{n}", f"cookie:{(n + 1) % 3}") for n in range(3)],
    ).run()
    assert counted(found)["cycles"] == 1
    assert set(persons(found).values()) == {"cookie:0"}


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"engine": "gpu"}, "engine must be one of"),
        ({"min_confidence": 2.0}, "min_confidence must be 0 to 1"),
        ({"max_keys_per_person": 10_000}, "what the gate lets pass"),
        ({"login_sources": ("household",)}, "cannot be both"),
        ({"exact_sources": ("household",)}, "cannot be one that merges"),
        ({"exact_sources": ("Login",)}, "in lower case"),
        ({"max_of_type": {"account": 2}}, "max_of_type of account must be 1"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        identities.Params(**wrong)


def test_caps_for_types_that_the_defaults_do_not_name_can_be_given():
    from jobs import params

    chosen = params.build(identities.Params, {"max_of_type": {"member": 2}})
    assert chosen.max_of_type["member"] == 2
    assert chosen.max_of_type["account"] == 1
    assert params.faults("identities", identities.Params, {"max_joined": {"member": 2}}) == []
