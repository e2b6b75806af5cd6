"""A story in plain words: why it waited, who was before it, where it went, what it cost."""

from __future__ import annotations

from typing import Any

from fairness.policy import policy

Facts = dict[str, Any]

ENDED = {
    "settled": "The replica settled it",
    "lost": "Its replica fell silent, so it was settled with what had been reported",
    "taken_back": "The grant was taken back unused",
}


def account(facts: Facts) -> list[str]:
    """Sentences, in the order of time. facts: `Story.facts`."""
    grants = facts["grants"]
    return [
        _arrival(facts),
        *_wait(facts),
        *(
            line
            for grant in grants
            for line in _grant(facts["client"], grant, again=grant is not grants[0])
        ),
        *_outcome(facts),
        *(_end(grant["end"]) for grant in grants if grant["end"] is not None),
        *_unsettled(facts),
    ]


def _arrival(facts: Facts) -> str:
    of = f" of {'/'.join(facts['groups'][-1:])}" if facts["groups"] else ""
    priority_class = f", class {facts['priority_class']}" if facts.get("priority_class") else ""
    price = f", {facts['price']:g} times the price" if facts.get("price", 1) != 1 else ""
    return (
        f"{facts['client']}{of} asked {facts['model']} at {facts['received_at']} "
        f"({facts['path']}, {facts['body_bytes']} bytes, weight {facts['weight']:g}, "
        f"priority {facts['priority']}{priority_class}{price}) through router {facts['router']}."
    )


def _wait(facts: Facts) -> list[str]:
    waited = facts["waited_ms"]
    if waited is None:
        return ["It did not come into the queue."]
    waits = facts["state"] == "waiting"
    lines = [f"It {'has waited' if waits else 'waited'} {_seconds(waited)} in the queue."]
    if facts["degraded"]:
        lines.append("The store was away: the router kept its own queue.")
    standing = facts["standing"]
    if standing is not None:
        lines += _standing(facts["client"], standing)
    elif not facts["grants"] and facts["degraded"]:
        lines.append("Who was before it is not known: the router's own queue does not tell.")
    elif facts["grants"]:
        lines.append("Nobody was before it: a replica had room at once.")
    return lines


def _standing(client: str, standing: Facts) -> list[str]:
    before = standing["requests_before"]
    fair = policy(standing["policy"]).by_client
    lines = []
    if not fair:
        lines.append(f"First come, first served: {_count(before, 'request')} had come before it.")
        if not standing["levels"]:
            return lines
        lines.append("What vtc would have gone by (shadow mode does not enforce it):")
    if standing.get("priority_class"):
        lines.append(_class(standing["priority_class"]))
    for level in standing["levels"]:
        who = level["name"]
        if level["group"]:
            who = f"the group {who}"
        if not level["ahead"]:
            lines.append(
                f"When it came, nobody who waited had received less than {who} "
                f"(counter {_number(level['counter'])}): it was its turn next."
            )
            continue
        verb = "was" if level["ahead"] == 1 else "were"
        named = ", ".join(f"{one['name']} by {_number(one['by'])}" for one in level["first"])
        more = level["ahead"] - len(level["first"])
        and_more = f" and {more} more" if more else ""
        lines.append(
            f"When it came, {level['ahead']} {verb} before {who} "
            f"(counter {_number(level['counter'])}), having received less service by weight: "
            f"{named}{and_more}."
        )
    own = before if fair else standing["own_requests_before"]
    if own:
        went = "went" if fair else "would have gone"
        lines.append(f"{_count(own, 'request')} of {client} itself {went} before it.")
    return lines


def _class(standing: Facts) -> str:
    owed = f", owed {_number(standing['owed'])} of its floor" if standing["owed"] > 0 else ""
    ahead = ", ".join(_owed(one) for one in standing["ahead"])
    before = f"before it waited {ahead}" if ahead else "no class that waited was before it"
    return f"It is in the priority class {standing['name']}{owed}; {before}. Within its class:"


def _owed(one: Facts) -> str:
    return f"{one['name']} (owed {_number(one['owed'])})" if one["owed"] > 0 else one["name"]


def _grant(client: str, grant: Facts, *, again: bool) -> list[str]:
    after = _seconds(grant["granted_ms"])
    line = f"Granted {'again ' if again else ''}after {after} to replica {grant['replica']}"
    chosen = grant["chosen"]
    if chosen is None:
        line += "."
    elif chosen["next_replica"] is None:
        line += f", the only one with room ({_count(chosen['credits'], 'credit')})."
    else:
        line += (
            f", which had most room: {_count(chosen['credits'], 'credit')}, "
            f"then {chosen['next_replica']} with {chosen['next_credits']}."
        )
    lines = [line]
    turn = grant.get("turn_under_vtc")
    if turn is not None and turn != client:
        lines.append(f"Under vtc it would have been the turn of {turn}.")
    elif turn is not None:
        lines.append("It would have been its turn under vtc, too.")
    charged = grant["charged"]
    if charged is not None:
        of_input = charged["input_tokens"]
        estimate = f"about {_count(of_input, 'prompt token')} and " if of_input else ""
        lines.append(
            f"Charged {_number(charged['service'])} in advance: {estimate}"
            f"{_number(charged['output_tokens'])} predicted output tokens."
        )
    if grant["failed"]:
        lines.append(
            f"That replica gave no answer ({grant['failed']}): back to its place, refunded."
        )
    return lines


def _end(end: Facts) -> str:
    cached = f" ({end['cached_tokens']} of them cached)" if end["cached_tokens"] else ""
    of_prompt = f"{_count(end['input_tokens'], 'prompt token')}{cached}"
    tokens = f"{of_prompt}, {_count(end['output_tokens'], 'output token')}"
    line = f"{ENDED[end['how']]}: {tokens}, service {_number(end['service'])}"
    if end["correction"] is None:
        return f"{line}."
    return f"{line}; the charge was corrected by {end['correction']:+,.6g}."


def _outcome(facts: Facts) -> list[str]:
    lines = []
    if facts["first_byte_ms"] is not None and facts["state"] != "refused":
        lines.append(f"The answer began after {_seconds(facts['first_byte_ms'])}.")
    if facts["ended_ms"] is None:
        return [*lines, f"It is {facts['state']} now."]
    status = f" with {facts['status']}" if facts["status"] else ""
    why = f": {facts['why']}" if facts["why"] else ""
    words = {
        "done": f"Answered{status}",
        "cancelled": "Its client went away",
        "refused": f"Refused{status}",
        "failed": "Its answer was cut off",
    }
    outcome = words.get(facts["state"], facts["state"])
    return [*lines, f"{outcome} after {_seconds(facts['ended_ms'])}{why}."]


def _unsettled(facts: Facts) -> list[str]:
    last = facts["grants"][-1] if facts["grants"] else None
    if facts["ended_ms"] is None or last is None or last["failed"] or last["end"] is not None:
        return []
    return ["What it cost is not known here: ask again in a second, or it was lost."]


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _number(value: float) -> str:
    return f"{value:,.6g}"


def _seconds(milliseconds: float) -> str:
    return f"{milliseconds / 1000:.1f} s" if milliseconds >= 1000 else f"{milliseconds:.0f} ms"
