"""Mixture of memories: several matrix memories, of which a router lets each position write and read a few.

    m = top of softmax(W_r x), weights w renormalised             q = W_q x, for all memories
    memory m: k, v, gates = W_m x; S_m written by its rule over the positions that chose it, and by no others
    o = sum_m w_m S_m^T q + S_0^T q                               y = W_o [rms(o) * silu(W_z x)]

A memory that is not chosen stands still: it neither decays nor learns, so that what it holds is safe from whatever goes
to the others. S_0 is the shared memory, which every position writes. q, k, v pass a short convolution and SiLU, of the
positions of their own memory alone: what stood before, for a memory, is the last position that chose it.

The authors' training code runs that convolution over the line of all memories' positions, across their borders, and
their evaluation does not; here borders hold in both. With a capacity, as in their simple form, a memory takes only the
latest positions of a row and drops the older ones: which these are depends on what follows, so that a model trained
with it is not causal and cannot step.

Shapes: B batch, T time, D width, M memories, K choices, P places in line, R rows (M B), L columns, H heads, E channels.
Source: Du, Sun, Lan, Hu, Cheng, "MoM: linear sequence modeling with mixture-of-memories", 2025, arXiv:2502.13685.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.core.state import State as BaseState
from seqloom.kernels.route import Routes
from seqloom.layers.linear import Linear
from seqloom.layers.norm import Norm
from seqloom.layers.router import Router
from seqloom.mixers._base import Mixer, ParamGroup, Traits
from seqloom.mixers.attention._decayed import Taps
from seqloom.mixers.memory._rules import Rule, Sizes, Writing

Before = tuple[Tensor, Tensor | None]
"""Every memory's matrices, and what its convolution saw."""


class MoM(Mixer):
    """Several memories behind a router, and one that all positions share."""

    @dataclass(frozen=True, kw_only=True)
    class State(BaseState):
        """After the last valid position, float32 or wider; the shared memory, where there is one, is the last."""

        s_BMHKV: Tensor
        inputs_BMWE: Tensor
        """What each memory's convolution still sees."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        """Options of the mixture."""

        router: Router.Config = field(default_factory=Router.Config)
        """Memories, how many of them a position takes, and the weight of the balance loss."""
        shared: bool = True
        """One more memory that every position writes and reads, with weight one."""
        rule: Rule = "gated_delta"
        """How memories are written: gated_delta, delta, decay, channels or linear."""
        single: bool = False
        """One map for the keys, values and gates of all memories."""
        heads: int = 4
        """Heads of each memory; must divide the channels of keys and those of values."""
        key_factor: float = 1.0
        """Channels of all queries, and of a memory's keys, as a multiple of the width."""
        value_factor: float = 1.0
        """Channels of a memory's values as a multiple of the width."""
        conv: int = 4
        """Taps of the convolution over queries, keys and values; 1 sees the position alone."""
        capacity: float = 0.0
        """Positions that a memory takes, as a multiple of an even share; older ones are dropped. 0 = all."""
        eps: float = 1e-6
        """Added to the mean square in the norm."""

    config: Config

    @classmethod
    def traits(cls, config: Any) -> Traits:
        """Constant state, unless a capacity drops what came first.

        How many positions share a matrix product depends on what follows them, and with it the last bit.
        """
        gaps = {"compilation": "how many positions a memory gets is known only when they are there"}
        if "delta" not in config.rule:
            gaps["flops"] = "the kernel of this rule computes the ends of short rows too"
        if config.capacity:
            gaps["flops"] = "what exceeds the capacity costs nothing, and how much does is known only when it is there"
            alone = {"step": "none", "rollback": "none", "sequence_comm": "forbidden"}
            return Traits(causal="selection", known_gaps=gaps, **alone)  # type: ignore[arg-type]
        return Traits(causal="fft", step="constant", rollback="recorded", sequence_comm="state", known_gaps=gaps)

    @classmethod
    def grid(cls) -> tuple[Mixer.Config, ...]:
        """Option sets that the contract test covers."""
        three = Router.Config(outlets=3, top=1)
        return (
            cls.Config(),
            cls.Config(router=three, rule="decay", heads=2, value_factor=1.5, conv=2, single=True),
            cls.Config(router=three, rule="channels", heads=2, shared=False),
            cls.Config(router=Router.Config(outlets=3, top=2), rule="linear", conv=1),
            cls.Config(router=Router.Config(outlets=5, top=3), rule="delta", heads=2, capacity=0.8),
        )

    def __init__(self, width: int, config: Config | None = None) -> None:
        """Keys, values and gates of a memory come from one matrix, in this order."""
        super().__init__(width, config)
        options = self.config
        if options.capacity < 0:
            raise ConfigError(f"mom: capacity must not be negative, as {options.capacity} is")
        self.sizes = Sizes.of("mom", width, options.heads, (options.key_factor, options.value_factor))
        keys, values = self.sizes.keys, self.sizes.values
        self.memories = options.router.outlets + options.shared
        self.router = options.router.build(width)
        self.writing = Writing(options.rule, self.sizes)
        self.query = Linear(width, keys, bias=False)
        channels = keys + values + self.sizes.gates(options.rule)
        maps = torch.empty(1 if options.single else self.memories, width, channels)
        self.write = nn.Parameter(maps.uniform_(-(width**-0.5), width**-0.5))
        self.conv = Taps(2 * keys + values, options.conv, bias=False)
        self.gate = Linear(width, values, bias=False)
        self.norm = Norm(values // options.heads, Norm.Config(kind="rms", eps=options.eps))
        self.out = Linear(values, width, bias=False)

    @property
    def wide(self) -> torch.dtype:
        """Dtype of gates and states."""
        return torch.promote_types(self.write.dtype, torch.float32)

    def initial_state(self, batch: int, *, capacity: int | None = None) -> BaseState:
        """Zeros."""
        if self.config.capacity:
            raise ConfigError("MoM with a capacity cannot continue from a state (traits.step is none)")
        return self._nothing(batch)

    def param_groups(self) -> list[ParamGroup]:
        """Rates and step sizes get no weight decay, which would pull them to other time scales."""
        names = [f"writing.{name}" for name, _ in self.writing.named_parameters()]
        return [ParamGroup(names=tuple(names))] if names else []

    def mix(self, x_BTD: Tensor, state: Any, layout: Layout, context: Tensor | None) -> tuple[Tensor, BaseState | None]:
        """Route, write and read each memory over its own positions, add up, norm, gate, project."""
        B, T, _ = x_BTD.shape
        start: Any = self._nothing(B) if state is None else state
        before = (start.s_BMHKV, None if state is None else start.inputs_BMWE)
        valid_BT = layout.valid_BT(T)
        x_BTD = x_BTD if valid_BT is None else x_BTD.masked_fill(~valid_BT[..., None], 0)
        chosen_BTK, weight_BTK = self.router(x_BTD, valid_BT)
        q_BTQ = self.query(x_BTD)
        routes = self._routes(chosen_BTK)
        found = [self._routed(x_BTD, q_BTQ, routes, weight_BTK, before)]
        if self.config.shared:
            found.append(self._shared(x_BTD, q_BTQ, layout, before))
        o_BTV = torch.stack([o for o, _, _ in found]).sum(0)
        with torch.autocast(x_BTD.device.type, enabled=False):
            o_BTV = self.norm(o_BTV.unflatten(2, (self.sizes.heads, -1))).flatten(2).to(x_BTD.dtype)
        y_BTD = self.out(o_BTV * silu(self.gate(x_BTD)))
        if state is None:
            return y_BTD, None
        s_BMHKV, inputs_BMWE = (torch.cat([part[at] for part in found], 1) for at in (1, 2))
        length_B = layout.advance(state.length_B, T)
        return y_BTD, replace(state, s_BMHKV=s_BMHKV, inputs_BMWE=inputs_BMWE, length_B=length_B, trail=None)

    def flops(self, length: int) -> int:
        """Maps of every position, and what is written and read in each of its memories."""
        maps = sum(layer.weight.numel() for layer in (self.router.map, self.query, self.gate, self.out))
        memory = self.write[0].numel() + self.conv.weight.numel() + self.sizes.macs(self.config.rule)
        return 2 * length * (maps + (self.config.router.top + self.config.shared) * memory)

    def state_bytes(self, length: int) -> int:
        """Every memory's matrices and convolution inputs, and the length."""
        sizes = self.sizes
        kept = (self.config.conv - 1) * (2 * sizes.keys + sizes.values)
        return self.memories * (sizes.keys * sizes.values // sizes.heads + kept) * self.wide.itemsize + 8

    def _nothing(self, batch: int) -> BaseState:
        new, sizes, memories = self.write.new_zeros, self.sizes, self.memories
        H, channels = sizes.heads, 2 * sizes.keys + sizes.values
        return self.State(
            s_BMHKV=new(batch, memories, H, sizes.keys // H, sizes.values // H, dtype=self.wide),
            inputs_BMWE=new(batch, memories, self.config.conv - 1, channels, dtype=self.wide),
            length_B=self.no_length(batch),
        )

    def _routes(self, chosen_BTK: Tensor) -> Routes:
        outlets = self.config.router.outlets
        routes = Routes.of(chosen_BTK, outlets)
        if not self.config.capacity:
            return routes
        share_B = routes.lengths_GB.sum(0) / outlets
        return routes.latest((self.config.capacity * share_B).ceil().long(), chosen_BTK)

    def _routed(
        self, x_BTD: Tensor, q_BTQ: Tensor, routes: Routes, weight_BTK: Tensor, before: Before
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Weighted sum of what the chosen memories answer (B, T, V), and their states."""
        outlets, B = routes.lengths_GB.shape
        line_PX = routes.line(torch.cat([x_BTD, q_BTQ.to(x_BTD.dtype)], 2))
        x_PD, q_PQ = line_PX.split([self.width, self.sizes.keys], 1)
        parts = x_PD.split(routes.lengths_GB.sum(1).tolist())
        kept_PE = torch.cat([part @ self._map(m).to(part.dtype) for m, part in enumerate(parts)])
        lengths_R = routes.lengths_R
        s_R, inputs_R = (None if x is None else x[:, :outlets].transpose(0, 1).flatten(0, 1) for x in before)
        line_RLE = routes.rows(torch.cat([q_PQ, kept_PE], 1))
        o_RLV, s_R, inputs_R = self._remember(line_RLE, s_R, inputs_R, lengths_R)
        o_BTKV = routes.scatter(routes.unrows(o_RLV))
        s_BMHKV, inputs_BMWE = (x.unflatten(0, (outlets, B)).transpose(0, 1) for x in (s_R, inputs_R))
        return (o_BTKV * weight_BTK[..., None].to(o_BTKV.dtype)).sum(2), s_BMHKV, inputs_BMWE

    def _shared(self, x_BTD: Tensor, q_BTQ: Tensor, layout: Layout, before: Before) -> tuple[Tensor, Tensor, Tensor]:
        kept_BTE = x_BTD @ self._map(self.memories - 1).to(x_BTD.dtype)
        line_BTE = torch.cat([q_BTQ.to(kept_BTE.dtype), kept_BTE], 2)
        s, inputs = (None if x is None else x[:, -1] for x in before)
        o_BTV, s, inputs = self._remember(line_BTE, s, inputs, layout.lengths_B)
        return o_BTV, s[:, None], inputs[:, None]

    def _map(self, memory: int) -> Tensor:
        return self.write[0 if self.config.single else memory]

    def _remember(
        self, line_RLE: Tensor, s_RHKV: Any, inputs_RWE: Tensor | None, lengths_R: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Convolve, write and read rows of one memory each."""
        keys, values = self.sizes.keys, self.sizes.values
        qkv_RLE, gates_RLA = line_RLE.split([2 * keys + values, line_RLE.shape[2] - 2 * keys - values], 2)
        if line_RLE.shape[1] == 0:  # nobody chose anything
            kept = s_RHKV.new_zeros(len(s_RHKV), self.config.conv - 1, 2 * keys + values)
            return line_RLE.new_zeros(len(line_RLE), 0, values), s_RHKV, kept if inputs_RWE is None else inputs_RWE
        qkv_RLE, inputs_RWE = self.conv(qkv_RLE, inputs_RWE, Layout(lengths_B=lengths_R))
        with torch.autocast(line_RLE.device.type, enabled=False):
            q, k, v = qkv_RLE.split([keys, keys, values], 2)
            o_RLHV, s_RHKV = self.writing(q, k, v, gates_RLA, s_RHKV, None, lengths_R)
        return o_RLHV.flatten(2), s_RHKV, inputs_RWE
