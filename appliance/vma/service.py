"""What the RPC's methods do: the shell around the X session machine.

One thread, one session. Requests and everything else that happens become events; the machine's actions go
to the `Desktop` at once. Hooks that guard an action run in a child; its caller waits for them, but no
longer than the host would.
"""

from __future__ import annotations

import os
from typing import Callable, List, Mapping, Optional

from appliance.vma import wire, xsession
from appliance.vma.conf import Conf
from appliance.vma.files import masked, say
from appliance.vma.hook_log import tails
from appliance.vma.hooks import ACTION, Hooks
from appliance.vma.loop import Loop, Timer, now
from appliance.vma.messages import Messages
from appliance.vma.nxagent import Desktop
from appliance.vma.question import Question
from appliance.vma.rpc import Answer, Once
from appliance.vma.wire import Request, XState

PATIENCE_S = 2.5  # the host gives up after 3 to 4 seconds
FAREWELL_S = 5.0


class Service:
    """Answers requests, keeps the session, and ends the guest."""

    def __init__(
        self,
        conf: Conf,
        loop: Loop,
        hooks: Hooks,
        question: Question,
        messages: Messages,
        limits: Mapping[str, float],
        poweroff: Callable[[], None],
    ) -> None:
        self._conf, self._loop, self._hooks = conf, loop, hooks
        self._question, self._messages = question, messages
        self._limits, self._poweroff = limits, poweroff
        self._desktop: Optional[Desktop] = None
        self._session = xsession.Session()
        self._timer: Optional[Timer] = None
        self._stopped: List[Callable[[], None]] = []

    def attach(self, desktop: Desktop, session: xsession.Session) -> None:
        """From now on `desktop` performs the actions; `session` is what it has found."""
        self._desktop, self._session = desktop, session
        self._arm()

    @property
    def session(self) -> xsession.Session:
        return self._session

    # -- requests

    def serve(self, request: Request, answer: Answer) -> None:
        """Answer one request, now or a little later."""
        call = request.call
        if request.method != "GET" or call is None:
            answer(wire.refusal(404))
        elif call == wire.PING:
            answer(wire.success(1))
        elif call == wire.X_STATE:
            answer(wire.success(self._session.x_state.value))
        elif call == wire.X_START:
            self._x_start(request.params, answer)
        elif call == wire.X_SUSPEND:
            self._x_suspend(answer)
        elif call == wire.X_STOP:
            self._guard("stop", {}, answer, lambda done: self._request(xsession.StopWanted(now()), done))
        elif call == wire.POWEROFF:
            self._guard("poweroff", {}, answer, self._power_off)
        elif call == wire.EXPIRE:
            self._expire(request.params, answer)
        elif call == wire.EXPIRE_ANSWER:
            self._expire_answer(request.params, answer)
        elif call == wire.MESSAGE:
            self._messages.show(request.params, self._session.x_state, answer)
        elif call == wire.HOOK_LOG:
            self._hook_log(request.params, answer)
        else:
            answer(self._vnc(request))

    def _x_start(self, params: Mapping[str, str], answer: Answer) -> None:
        say(f"x_start {masked(params)}")
        if any("\0" in text for pair in params.items() for text in pair):
            answer(wire.failure("a parameter contains a NUL byte"))
            return
        self._request(xsession.StartWanted(now(), params), answer)

    def _expire(self, params: Mapping[str, str], answer: Answer) -> None:
        if any("\0" in text for pair in params.items() for text in pair):
            answer(wire.failure("a parameter contains a NUL byte"))
            return
        answer(wire.success(self._question.ask(params, self._session.x_state.value)))

    def _expire_answer(self, params: Mapping[str, str], answer: Answer) -> None:
        try:
            wait_s = float(params.get(wire.WAIT, "0"))
        except ValueError:
            wait_s = -1.0
        if not 0 <= wait_s <= wire.MAX_WAIT_S:
            answer(wire.failure(f"{wire.WAIT} is not a number of seconds from 0 to {wire.MAX_WAIT_S:g}"))
            return
        self._question.tell(wait_s, lambda words: answer(wire.success(words)))

    def _hook_log(self, params: Mapping[str, str], answer: Answer) -> None:
        lines = params.get(wire.LOG_LINES, "100")
        if not lines.isdecimal() or len(lines) > 6 or int(lines) < 1:
            answer(wire.failure(f"{wire.LOG_LINES} is not a number of lines"))
            return
        answer(wire.success(tails(self._conf, min(int(lines), wire.MAX_LOG_LINES))))

    def _x_suspend(self, answer: Answer) -> None:
        def suspend(done: Answer) -> None:
            self._request(xsession.SuspendWanted(now()), done)

        if self._session.x_state in (XState.CONNECTED, XState.LISTENING):
            self._guard("suspend", {}, answer, suspend)
        else:
            suspend(answer)

    def _vnc(self, request: Request) -> bytes:
        upgrade = request.headers.get("upgrade", "").lower() == "vnc"
        if not upgrade or "upgrade" not in request.headers.get("connection", "").lower():
            return wire.refusal(426)
        state = self._session.x_state
        reason = f"Unable to start VNC service while session is in state {state}"
        if state in (XState.CONNECTED, XState.SUSPENDED):
            reason = "There is no VNC service in this guest"
        starting = wire.head(102, {"X-QVD-VMA-Info": "Starting VNC service"})
        return starting + wire.refusal(503, reason)

    def _request(self, event: xsession.Event, answer: Answer) -> None:
        for action in self.post(event):
            if isinstance(action, xsession.Answer):
                answer(wire.success(action.value))
            elif isinstance(action, xsession.Refuse):
                answer(wire.failure(action.text))

    def _guard(
        self, action: str, params: Mapping[str, str], answer: Answer, then: Callable[[Answer], None]
    ) -> None:
        """Run the action's hook, then the action; a hook that fails aborts it."""
        if not self._hooks.has(ACTION + action):
            then(answer)
            return
        state = self._session.x_state.value
        once = Once(answer)
        early = wire.success(_EXPECTED[action])
        patience = self._loop.after(PATIENCE_S, lambda: once(early))

        def ended(status: int) -> None:
            patience.cancel()
            if os.waitstatus_to_exitcode(status) == 0:
                then(once)
            else:
                once(wire.failure(f"the hook of action {action} failed"))

        def work() -> None:
            try:
                self._hooks.run_action(action, params, state)
            except Exception as exc:
                say(str(exc))
                raise SystemExit(1) from exc

        self._loop.fork(work, ended)

    # -- events

    def post(self, event: xsession.Event) -> List[xsession.Action]:
        """Let something happen to the session; returns what was ordered, for answers to a request."""
        before = self._session
        self._session, actions = xsession.step(before, event)
        self._arm()
        for action in actions:
            self._perform(action)
        if self._session.x_state is XState.STOPPED:
            waiting, self._stopped = self._stopped, []
            for call in waiting:
                call()
        return list(actions)

    def _perform(self, action: xsession.Action) -> None:
        desktop = self._desktop
        if desktop is None or isinstance(action, (xsession.Answer, xsession.Refuse)):
            return
        if isinstance(action, xsession.Launch):
            desktop.launch(action)
        elif isinstance(action, xsession.Prepare):
            desktop.prepare(action)
        elif isinstance(action, xsession.HangUp):
            desktop.hang_up(action)
        elif isinstance(action, xsession.Terminate):
            desktop.terminate(action)
        elif isinstance(action, xsession.Kill):
            desktop.kill(action)
        else:
            desktop.entered(action)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        tick = self._session.due(self._limits)
        if tick is not None:
            final = tick.final
            self._timer = self._loop.after(
                max(0.0, tick.at - now()), lambda: self.post(xsession.Tick(now(), final))
            )

    # -- the end

    def _power_off(self, answer: Answer) -> None:
        answer(wire.success(0))
        say("power off")
        self.end_session(self._poweroff)

    def quit(self) -> None:
        """A clean stop of the VMA: the stop hook, the end of the session, then of the loop."""
        self._guard("stop", {}, lambda _: None, lambda _: self.end_session(self._loop.stop))
        self._loop.after(PATIENCE_S + FAREWELL_S, self._loop.stop)

    def end_session(self, then: Callable[[], None]) -> None:
        """End the session gently and go on when it is gone, or after a little while all the same."""
        once = Once(lambda _: then())
        if self._session.x_state is XState.STOPPED:
            once(b"")
            return
        self._stopped.append(lambda: once(b""))
        self._loop.after(FAREWELL_S, lambda: once(b""))
        self.post(xsession.StopWanted(now()))


_EXPECTED = {"stop": "stopping", "suspend": "starting", "poweroff": 0}
