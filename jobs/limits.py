"""Where the gates draw their lines: every threshold with its reason.

None of them is a parameter of a run: what a night must be to be published does not bend for one
night. To move a line, change it here, in a commit that says why.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Minimums:
    """How much there must be to learn from."""

    interactions: int
    people: int


# Below this nothing that is learned is more than an anecdote: red.
HARD = Minimums(interactions=1_000, people=25)
# Below this lists are published, and whoever reads the report knows that they rest on little.
SOUND = Minimums(interactions=50_000, people=1_000)

# --- what a delivery of events may hold, as shares of the rows received ----------------------
# Equal repeats come from at-least-once delivery; above a tenth a whole file came twice.
DUPLICATES = 0.10
# Rows that cannot be (no item, negative price, unknown type, bots): above this the export is ill.
REJECTS = 0.05
# Rows from the future: a clock or a time zone is wrong, which shifts the other rows as well.
FUTURE = 0.05
# Rows without a key are people who bought as guests, a quarter of Online Retail's lines: they
# teach nothing about a person. Above a half the join to the customers is what broke.
ANONYMOUS = 0.50
ANONYMOUS_UNUSUAL = 0.05
# Up to one in a thousand is the noise of any delivery and not worth a warning.
NOISE = 0.001
# Rows that came after the lists they should have shaped.
LATE_UNUSUAL = 0.10

# --- the newest day against the same weekday before -----------------------------------------
# Healthy weeks of Complete Journey range from 0.45 to 1.93 times each other.
VOLUME_USUAL = (0.45, 1.93)
# Twice as far out as the widest healthy swing.
VOLUME_POSSIBLE = (0.22, 3.86)
# Fewer values of a weekday than this do not say what is normal: only warnings.
VOLUME_HISTORY = 8
# A weekday with this many rows at its median is not empty by chance (e**-20).
EMPTY_DAY_MEDIAN = 20

# --- identities ------------------------------------------------------------------------------
# A person with this many keys is a call centre, a test account or a wrong merge.
KEYS_UNUSUAL = 50
KEYS_IMPOSSIBLE = 500
# Links that might merge but break a cap. With 2 % of devices shared and 5 % of cookies recycled,
# each with two links, one in seven does; twice that is unusual. Above a half a feed ties wrong
# keys (an account "0" on every device): persons would fall apart, and yesterday's serve better.
QUARANTINED_UNUSUAL = 0.28
QUARANTINED = 0.50
# Fewer links than this do not say what is usual.
LINKS_SOUND = 1_000
# Links to keys that nothing names: above a half the feeds write the same keys differently.
UNKNOWN_KEYS_UNUSUAL = 0.50
# Persons of the night before that are gone, merged into others. Links grow by a few per cent a
# night; a feed of links that begins takes most persons at once and rightly, so it is no red.
PERSONS_GONE_UNUSUAL = 0.10
# What can become of a link; docs/decisions/identity.md explains each.
LINK_OUTCOMES = (
    "admitted", "household", "unlinked", "unknown_action", "observed_in_the_future", "self_link",
    "confidence_outside_0_1", "unknown_source", "no_account", "below_threshold", "unknown_key",
    "too_many_of_type", "would_join_two", "person_too_large", "household_too_large",
)  # fmt: skip
# What can change persons from one night to the next.
CHANGE_CAUSES = ("link", "unlink", "cap", "policy", "data")

# --- sessions --------------------------------------------------------------------------------
# A day without half an hour of rest is not one person's shopping but a till's or a script's.
SESSION_HOURS = 24
# One such key in a shop is a warning; this share of all sessions means that pauses are not seen.
SESSIONS_TOO_LONG = 0.001
# Events that found their person by a login in the session and not by their key. Shared devices
# (2 in 100) and recycled cookies (5 in 100) leave a few of them; a fifth is three times as many.
BY_LOGIN_UNUSUAL = 0.20
# More than half: the links between keys do not arrive, or one client session id is everybody's.
BY_LOGIN = 0.50

# --- audits ----------------------------------------------------------------------------------
# A feed with fewer events than this can be silent by chance: only a warning.
FEED_EVENTS = 500
# Share of active persons whom evidence ties to another active or passive person after merging.
# The policy leaves guesses apart on purpose, some persons in a hundred; above this it may be
# too strict, or a link feed is broken.
SPLIT_UNUSUAL = 0.10
# Half of the people are several persons: the merge did not happen, and lists rank fragments.
SPLIT_GROSS = 0.50
# With fewer persons than this a share is an anecdote: only a warning.
SPLIT_PERSONS = 200
# Above this share of revenue without an account the lists are made for cookies, not for customers.
ANONYMOUS_REVENUE = 0.50
# The blend's weight that may move between sources while the model still counts as it was.
WEIGHTS_CLOSE = 0.2

# --- retrieval -------------------------------------------------------------------------------
# ALS norms on Complete Journey stay below 20; a fit that diverges leaves this far behind.
NORM = 1_000.0
# Share of items whose vector moved over 20 % of its norm: a warm night moves few of them.
MOVED_UNUSUAL = 0.5
# Recall@50 of the index against exact search.
RECALL = 0.95
# New items: an index whose centroids were frozen had 0.37 here while overall recall was 0.97.
RECALL_STRATUM = 0.90
# Fewer queries than this make a stratum's recall too noisy to stop a night for.
RECALL_QUERIES = 20

# --- scoring ---------------------------------------------------------------------------------
# Candidates by tenths of their probability: what came may differ from what was foretold by this
# share of it, or thresholds and values computed from probabilities mislead.
CALIBRATION_OFF = 0.25
# ... and in a tenth with fewer purchases foretold chance alone does that.
CALIBRATION_PURCHASES = 100

# --- ordering --------------------------------------------------------------------------------
# What is published may fall behind the best single source by this much NDCG@10 and no more.
RANKING_SLACK = 0.005
# Quotas are least shares; a source may miss its own by this share of the places.
DELIVERY_SHORT = 0.02
# Share of the people with consent who may be without a list.
UNSERVED = 0.05
# With fewer people judged the difference is chance: only a warning.
RANKING_PEOPLE = 200
# Share of delivered slots that business rules changed. At 15 % rules begin to be the recommender
# and the model its supplement; at a fifth what is measured of the model no longer speaks of what
# people see, so the night stops until the rules move into the objective or the filters.
OVERRIDE_UNUSUAL = 0.15
OVERRIDE = 0.20

# Share of people or items that a refresh touches: an hour of a shop is a few per cent.
TOUCHED_UNUSUAL = 0.5
