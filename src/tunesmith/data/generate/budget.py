"""Caps on tokens and money, looked at before each call: a call goes out only if all that is out fits under them."""

from tunesmith.core.errors import InvalidRequest
from tunesmith.data.generate.journal import StoppedBy
from tunesmith.data.generate.request import Caps, Prices
from tunesmith.data.generate.state import Spending, State

Tokens = tuple[int, int]
"""(prompt tokens, completion tokens)."""


class Budget:
    """What may be spent. Calls in flight count at about the most they can take; lost calls count as spent."""

    def __init__(self, caps: Caps, prices: Prices, state: State):
        self._caps = caps
        self._prices = prices
        self._state = state
        self._held: dict[int, Tokens] = {}

    def hold(self, slot: int, most: Tokens) -> StoppedBy | None:
        """Set aside what a slot's remaining calls can take; the cap that forbids it, else None."""
        prompt_tokens, completion_tokens = self._committed(most)
        if self._caps.max_tokens is not None and prompt_tokens + completion_tokens > self._caps.max_tokens:
            return "tokens"
        cost = self._prices.cost(prompt_tokens, completion_tokens)
        if self._caps.max_cost is not None and cost > self._caps.max_cost:
            return "cost"
        self._held[slot] = most
        return None

    def lower(self, slot: int, most: Tokens) -> None:
        """What the slot can still take, once a call's real usage is in the state."""
        self._held[slot] = most

    def release(self, slot: int) -> None:
        del self._held[slot]

    def require_room(self, most: Tokens) -> None:
        """Raises InvalidRequest when not even one candidate fits under the caps as they stand."""
        cap = self.hold(-1, most)
        if cap is None:
            self.release(-1)
            return
        cost = self._prices.cost(*most)
        needed = f"{cost:.6f}" if cap == "cost" else f"{sum(most):,} tokens"
        spent = spent_cost(self._state.spending, self._prices) if cap == "cost" else spent_tokens(self._state.spending)
        raise InvalidRequest(
            f"max_{cap} leaves no room for one candidate, which may take {needed} ({spent:,} are spent).",
            param=f"max_{cap}",
            code="cap_too_small",
            mend="Raise the cap, or lower max_answer_tokens.",
        )

    def _committed(self, most: Tokens) -> Tokens:
        spending = self._state.spending
        held = [*self._held.values(), most]
        return (
            spending.prompt_tokens + spending.lost_prompt_tokens + sum(tokens[0] for tokens in held),
            spending.completion_tokens + spending.lost_completion_tokens + sum(tokens[1] for tokens in held),
        )


def spent_tokens(spending: Spending) -> int:
    """With those of lost calls."""
    return (
        spending.prompt_tokens
        + spending.completion_tokens
        + spending.lost_prompt_tokens
        + spending.lost_completion_tokens
    )


def spent_cost(spending: Spending, prices: Prices) -> float:
    """With that of lost calls."""
    return prices.cost(
        spending.prompt_tokens + spending.lost_prompt_tokens,
        spending.completion_tokens + spending.lost_completion_tokens,
    )
