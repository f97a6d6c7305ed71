"""identity_counts: what became of every link between keys."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.columns import Column, Share
from expectations.rules import WARNING, between, column, contains, filled, rows, total, unique
from jobs import limits

CAPS = tuple(f"link: {name}" for name in ("too_many_of_type", "would_join_two", "person_too_large"))
MIGHT_MERGE = ("link: admitted", *CAPS)
RECEIVED = ("rows: received",)
COLUMNS: dict[str, Column] = {
    "quarantined": Share("rows", "outcome", CAPS, MIGHT_MERGE, limits.LINKS_SOUND),
    "unknown": Share("rows", "outcome", ("link: unknown_key",), ("link: ",), limits.LINKS_SOUND),
    "unusable": Share(
        "rows", "outcome", ("rows: no_", "link: confidence_outside_0_1"), RECEIVED,
        limits.LINKS_SOUND,
    ),
    "clocks": Share(
        "rows", "outcome", ("rows: received_before_observed", "rows: observed_after_as_of"),
        RECEIVED, limits.LINKS_SOUND,
    ),
}  # fmt: skip


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("Without counts a broken link feed goes unseen."),
        *filled("The report shows these.", "outcome", "rows"),
        unique("An outcome counted twice.", "outcome"),
        between("A negative count is a broken count.", "rows", 0),
        contains(
            "How many keys and persons there are is not told.", "outcome", ("keys", "persons")
        ),
        contains(
            "Whether caps hold and which types found persons is not told.",
            "outcome",
            ("over_cap", "without_accounts", "unnamed_types"),
        ),
        between(
            "Two keys of a type of which a person holds one: one would be shown what the other "
            "bought.",
            "rows",
            0,
            0,
            when=column("outcome") == "over_cap",
        ),
        between(
            "No key is of a type that says who somebody is (identities.max_of_type), so nothing "
            "keeps two people apart who share a device; name the type of your logins there.",
            "rows",
            0,
            0,
            when=column("outcome") == "without_accounts",
            severity=WARNING,
        ),
        between(
            "Persons hold several keys of a type that identities.max_joined does not name: if "
            "people log in with it, two of them on one device are one person; name it there and in "
            "identities.max_of_type.",
            "rows",
            0,
            0,
            when=column("outcome") == "unnamed_types",
            severity=WARNING,
        ),
        between(
            "Logins on keys of a type that no parameter names, and on no account, join nothing; "
            "identity_links names the type: say in identities.max_joined and max_of_type how many "
            "a key and a person may hold.",
            "rows",
            0,
            0,
            when=column("outcome") == "link: no_account",
            severity=WARNING,
        ),
        between(
            "Links of a source that the policy does not know join nothing; identity_links names "
            "the source, and identities.exact_sources, guessing_sources or household_sources say "
            "what it is worth.",
            "rows",
            0,
            0,
            when=column("outcome") == "link: unknown_source",
            severity=WARNING,
        ),
        total(
            "Half of the links that might merge break a cap: a feed ties wrong keys, and persons "
            "would fall apart. If the caps are too tight for this shop, set identities.max_joined.",
            "quarantined",
            high=limits.QUARANTINED,
        ),
        total(
            "More links than usual break a cap; identity_links names the keys and the caps.",
            "quarantined",
            high=limits.QUARANTINED_UNUSUAL,
            severity=WARNING,
        ),
        total(
            "Most links name keys that no event and no person has; see whether both feeds write "
            "them alike.",
            "unknown",
            high=limits.UNKNOWN_KEYS_UNUSUAL,
            severity=WARNING,
        ),
        total(
            "Links without a key, a source, a time or a confidence from 0 to 1 join nothing.",
            "unusable",
            high=limits.REJECTS,
            severity=WARNING,
        ),
        total(
            "Links received before they were observed, or from the future: a clock or a time zone "
            "of the source is wrong.",
            "clocks",
            high=limits.FUTURE,
            severity=WARNING,
        ),
    ]
