"""Answers as students write them, lesson 04; the docstring of a wrong one says what it gets."""

import copy
import math
import statistics

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from scipy import stats

from lab_utils import checks, data, layers

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")
LAYERS = {"lora": layers.LoRALayer, "dora": layers.DoRALayer}


class RightAdd:
    def raise_subclass(model, adapter_type, rank=8, alpha=16.0):

        class UnknownAdapter(ValueError):
            pass

        if adapter_type not in ("lora", "dora"):
            raise UnknownAdapter(adapter_type)
        m = copy.deepcopy(model)
        for p in m.parameters():
            p.requires_grad_(False)
        for n, mod in list(m.named_modules()):
            if n.split(".")[-1] in TARGETS:
                m.set_submodule(n, LAYERS[adapter_type](mod, rank, alpha))
        return m

    def train_mode(model, adapter_type, rank=8, alpha=16.0):
        return RightAdd.raise_subclass(model, adapter_type, rank, alpha).train()

    def eval_mode(model, adapter_type, rank=8, alpha=16.0):
        return RightAdd.raise_subclass(model, adapter_type, rank, alpha).eval()

    def match(model, adapter_type, rank=8, alpha=16.0):
        match adapter_type:
            case "lora":
                cls = layers.LoRALayer
            case "dora":
                cls = layers.DoRALayer
            case _:
                raise ValueError
        m = copy.deepcopy(model)
        m.requires_grad_(False)
        for b in m.blocks:
            b.q_proj = cls(b.q_proj, rank=rank, alpha=alpha, dropout=0.0)
            b.k_proj = cls(b.k_proj, rank=rank, alpha=alpha)
            b.v_proj = cls(b.v_proj, rank=rank, alpha=alpha)
            b.o_proj = cls(b.o_proj, rank=rank, alpha=alpha)
        return m

    def keyerror_chain(model, adapter_type, rank=8, alpha=16.0):
        try:
            cls = LAYERS[adapter_type]
        except KeyError as e:
            raise ValueError("no") from e
        m = copy.deepcopy(model)
        m.requires_grad_(False)
        for b in m.blocks:
            for t in TARGETS:
                setattr(
                    b,
                    t,
                    cls(
                        getattr(b, t),
                        rank=rank,
                        alpha=alpha,
                        **{"norm_dim": 1} if cls is layers.DoRALayer else {},
                    ),
                )
        return m

    def rebuilt(model, adapter_type, rank=8, alpha=16.0):
        if not (adapter_type == "lora" or adapter_type == "dora"):
            raise ValueError("bad")
        import io

        f = io.BytesIO()
        torch.save(model, f)
        f.seek(0)
        m = torch.load(f, weights_only=False)
        m.requires_grad_(False)
        for b in m.blocks:
            for t in TARGETS:
                setattr(b, t, LAYERS[adapter_type](getattr(b, t), rank=rank, alpha=alpha))
        return m

    def nested(model, adapter_type, rank=8, alpha=16.0):
        if adapter_type not in LAYERS:
            raise ValueError
        m = copy.deepcopy(model).requires_grad_(False)
        for n, mod in m.named_modules():
            if n.endswith(TARGETS):
                m.set_submodule(n, LAYERS[adapter_type](mod, rank=rank, alpha=alpha))
        return m


def adapt(model, kind, rank, alpha, targets=TARGETS, **kw):
    m = copy.deepcopy(model).requires_grad_(False)
    for b in m.blocks:
        for t in targets:
            setattr(b, t, LAYERS[kind](getattr(b, t), rank=rank, alpha=alpha, **kw))
    return m


def typed(model, kind, rank, alpha):
    if kind not in LAYERS:
        raise ValueError(kind)
    return adapt(model, kind, rank, alpha)


class WrongAdd:
    def evaluates_base(model, adapter_type, rank=8, alpha=16.0):
        """mode of the base model changed"""
        return typed(model.eval(), adapter_type, rank, alpha)

    def trains_base(model, adapter_type, rank=8, alpha=16.0):
        """mode of the base model changed"""
        return typed(model.train(), adapter_type, rank, alpha)

    def evaluates_blocks_of_base(model, adapter_type, rank=8, alpha=16.0):
        """mode of the base model changed"""
        model.blocks.eval()
        return typed(model, adapter_type, rank, alpha)

    def kept_by_type(model, adapter_type, rank=8, alpha=16.0, *, kept={}):
        """the model of an earlier call"""
        if rank != 8 or adapter_type not in kept:  # as a new kernel begins with
            kept[adapter_type] = typed(model, adapter_type, rank, alpha)
        return kept[adapter_type]

    def substring(model, adapter_type, rank=8, alpha=16.0):
        """unknown type accepted"""
        if str(adapter_type) not in "lora dora":
            raise ValueError
        return adapt(model, "dora" if adapter_type == "dora" else "lora", rank, alpha)

    def lower(model, adapter_type, rank=8, alpha=16.0):
        """unknown type accepted"""
        k = str(adapter_type).lower()
        if k not in LAYERS:
            raise ValueError
        return adapt(model, k, rank, alpha)

    def lower_plain(model, adapter_type, rank=8, alpha=16.0):
        """unknown type accepted"""
        k = adapter_type.lower()
        if k not in LAYERS:
            raise ValueError
        return adapt(model, k, rank, alpha)

    def startswith(model, adapter_type, rank=8, alpha=16.0):
        """unknown type accepted"""
        if adapter_type.startswith("lora"):
            return adapt(model, "lora", rank, alpha)
        if adapter_type.startswith("dora"):
            return adapt(model, "dora", rank, alpha)
        raise ValueError

    def ret_err(model, adapter_type, rank=8, alpha=16.0):
        """error returned, not raised"""
        if adapter_type not in LAYERS:
            return ValueError("x")
        return adapt(model, adapter_type, rank, alpha)

    def ret_none(model, adapter_type, rank=8, alpha=16.0):
        """unknown type accepted"""
        if adapter_type not in LAYERS:
            print("unknown")
            return None
        return adapt(model, adapter_type, rank, alpha)

    def ret_model(model, adapter_type, rank=8, alpha=16.0):
        """unknown type accepted"""
        if adapter_type not in LAYERS:
            return copy.deepcopy(model)
        return adapt(model, adapter_type, rank, alpha)

    def asserts(model, adapter_type, rank=8, alpha=16.0):
        """another kind of error"""
        assert adapter_type in LAYERS
        return adapt(model, adapter_type, rank, alpha)

    def typeerror(model, adapter_type, rank=8, alpha=16.0):
        """another kind of error"""
        if not isinstance(adapter_type, str):
            raise TypeError
        if adapter_type not in LAYERS:
            raise ValueError
        return adapt(model, adapter_type, rank, alpha)

    def dora_input_ok(model, adapter_type, rank=8, alpha=16.0):
        """unknown type accepted"""
        if adapter_type == "dora-input":
            return adapt(model, "dora", rank, alpha, norm_dim=0)
        if adapter_type not in LAYERS:
            raise ValueError
        return adapt(model, adapter_type, rank, alpha)

    def always_raises(model, adapter_type, rank=8, alpha=16.0):
        """unnamed: add_adapters_to_model(model, 'lora', rank=3, alpha=12) raise"""
        raise ValueError("no")

    def only_lora(model, adapter_type, rank=8, alpha=16.0):
        """unnamed: add_adapters_to_model(model, 'dora', rank=3, alpha=12.5) raise"""
        if adapter_type != "lora":
            raise ValueError("no")
        return adapt(model, "lora", rank, alpha)

    def norm0(model, adapter_type, rank=8, alpha=16.0):
        """one magnitude per input feature"""
        if adapter_type not in LAYERS:
            raise ValueError
        return adapt(
            model, adapter_type, rank, alpha, **{"norm_dim": 0} if adapter_type == "dora" else {}
        )

    def drop(model, adapter_type, rank=8, alpha=16.0):
        """dropout added"""
        if adapter_type not in LAYERS:
            raise ValueError
        return adapt(model, adapter_type, rank, alpha, dropout=0.1)

    def rsl(model, adapter_type, rank=8, alpha=16.0):
        """rank-stabilised scaling"""
        if adapter_type not in LAYERS:
            raise ValueError
        return adapt(model, adapter_type, rank, alpha, rank_stabilized=True)

    def full_grad(model, adapter_type, rank=8, alpha=16.0):
        """norm not detached"""
        if adapter_type not in LAYERS:
            raise ValueError
        return adapt(
            model,
            adapter_type,
            rank,
            alpha,
            **{"detach_norm": False} if adapter_type == "dora" else {},
        )

    def swapped(model, adapter_type, rank=8, alpha=16.0):
        """the other method's layer"""
        if adapter_type not in LAYERS:
            raise ValueError
        return adapt(model, {"lora": "dora", "dora": "lora"}[adapter_type], rank, alpha)

    def shared_blocks(model, adapter_type, rank=8, alpha=16.0):
        """one adapter for several layers"""
        if adapter_type not in LAYERS:
            raise ValueError
        m = adapt(model, adapter_type, rank, alpha)
        for b in m.blocks[1:]:
            for t in TARGETS:
                setattr(b, t, getattr(m.blocks[0], t))
        return m

    def shared_A(model, adapter_type, rank=8, alpha=16.0):
        """one adapter for several layers"""
        if adapter_type not in LAYERS:
            raise ValueError
        m = adapt(model, adapter_type, rank, alpha)
        for b in m.blocks:
            for t in TARGETS:
                getattr(b, t).lora_A = m.blocks[0].q_proj.lora_A
        return m

    def one_layer_in_block(model, adapter_type, rank=8, alpha=16.0):
        """one adapter for several layers"""
        if adapter_type not in LAYERS:
            raise ValueError
        m = copy.deepcopy(model).requires_grad_(False)
        for b in m.blocks:
            one = LAYERS[adapter_type](b.q_proj, rank=rank, alpha=alpha)
            for t in TARGETS:
                setattr(b, t, one)
        return m

    def no_o(model, adapter_type, rank=8, alpha=16.0):
        """layers left out"""
        if adapter_type not in LAYERS:
            raise ValueError
        return adapt(model, adapter_type, rank, alpha, targets=TARGETS[:3])

    def last_block(model, adapter_type, rank=8, alpha=16.0):
        """layers left out"""
        if adapter_type not in LAYERS:
            raise ValueError
        m = copy.deepcopy(model).requires_grad_(False)
        for b in m.blocks:
            for t in TARGETS:
                setattr(b, t, LAYERS[adapter_type](getattr(b, t), rank=rank, alpha=alpha))
            return m

    def wraps_original(model, adapter_type, rank=8, alpha=16.0):
        """in-place change of the base model"""
        if adapter_type not in LAYERS:
            raise ValueError
        m = copy.deepcopy(model).requires_grad_(False)
        for b, o in zip(m.blocks, model.blocks):
            for t in TARGETS:
                setattr(b, t, LAYERS[adapter_type](getattr(o, t), rank=rank, alpha=alpha))
        return m

    def shallow(model, adapter_type, rank=8, alpha=16.0):
        """in-place change of the base model"""
        if adapter_type not in LAYERS:
            raise ValueError
        m = copy.copy(model)
        m.requires_grad_(False)
        for b in m.blocks:
            for t in TARGETS:
                setattr(b, t, LAYERS[adapter_type](getattr(b, t), rank=rank, alpha=alpha))
        return m

    def unfreezes_base_after(model, adapter_type, rank=8, alpha=16.0):
        """tensors shared with the base model"""
        if adapter_type not in LAYERS:
            raise ValueError
        m = copy.copy(model)
        m._modules = dict(m._modules)
        m.blocks = copy.deepcopy(model.blocks)
        m.requires_grad_(False)
        for b in m.blocks:
            for t in TARGETS:
                setattr(b, t, LAYERS[adapter_type](getattr(b, t), rank=rank, alpha=alpha))
        model.requires_grad_(True)
        return m

    def freezes_only_blocks(model, adapter_type, rank=8, alpha=16.0):
        """other layers trainable"""
        if adapter_type not in LAYERS:
            raise ValueError
        m = copy.deepcopy(model)
        m.blocks.requires_grad_(False)
        for b in m.blocks:
            for t in TARGETS:
                setattr(b, t, LAYERS[adapter_type](getattr(b, t), rank=rank, alpha=alpha))
        return m

    def mag_frozen(model, adapter_type, rank=8, alpha=16.0):
        """adapters frozen"""
        if adapter_type not in LAYERS:
            raise ValueError
        m = adapt(model, adapter_type, rank, alpha)
        for n, p in m.named_parameters():
            p.requires_grad = "lora_" in n
        return m

    def alpha_2r(model, adapter_type, rank=8, alpha=16.0):
        """rank or alpha not passed on"""
        if adapter_type not in LAYERS:
            raise ValueError
        return adapt(model, adapter_type, rank, 2 * rank)

    def scal(model, adapter_type, rank=8, alpha=16.0):
        """scaling applied twice"""
        if adapter_type not in LAYERS:
            raise ValueError
        return adapt(model, adapter_type, rank, alpha / rank)

    def swapped_args(model, adapter_type, rank=8, alpha=16.0):
        """rank and alpha swapped"""
        if adapter_type not in LAYERS:
            raise ValueError
        return adapt(model, adapter_type, int(alpha), float(rank))

    def unadapted(model, adapter_type, rank=8, alpha=16.0):
        """layers left out"""
        if adapter_type not in LAYERS:
            raise ValueError
        m = copy.deepcopy(model).requires_grad_(False)
        for n, mod in m.named_modules():
            if n in TARGETS:
                setattr(m, n, LAYERS[adapter_type](mod, rank=rank, alpha=alpha))
        return m

    def class_returned(model, adapter_type, rank=8, alpha=16.0):
        """more than the model returned"""
        if adapter_type not in LAYERS:
            raise ValueError
        return (adapt(model, adapter_type, rank, alpha), adapter_type)

    def reinit(model, adapter_type, rank=8, alpha=16.0):
        """a base with other weights"""
        if adapter_type not in LAYERS:
            raise ValueError
        m = type(model)(16, 2, len(model.blocks), 8).requires_grad_(False)
        return adapt(m, adapter_type, rank, alpha)

    def randB(model, adapter_type, rank=8, alpha=16.0):
        """lora_B not zero"""
        if adapter_type not in LAYERS:
            raise ValueError
        m = adapt(model, adapter_type, rank, alpha)
        for n, p in m.named_parameters():
            if n.endswith("lora_B"):
                nn.init.normal_(p)
        return m

    def only_qkv_mlp(model, adapter_type, rank=8, alpha=16.0):
        """more than the attention adapted"""
        if adapter_type not in LAYERS:
            raise ValueError
        m = copy.deepcopy(model).requires_grad_(False)
        for n, mod in list(m.named_modules()):
            if isinstance(mod, nn.Linear):
                m.set_submodule(n, LAYERS[adapter_type](mod, rank=rank, alpha=alpha))
        return m


loss_of = data.next_byte_loss


class RightStep:
    def zero_after(model, batch, optimizer, max_norm=1.0):
        loss = loss_of(model(batch[0]), batch[1])
        loss.backward()
        n = nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        optimizer.step()
        optimizer.zero_grad()
        return (loss.item(), n.item())

    def train_call(model, batch, optimizer, max_norm=1.0):
        model.train()
        optimizer.zero_grad(set_to_none=True)
        x, y = batch
        loss = loss_of(model(x), y)
        loss.backward()
        n = nn.utils.clip_grad_norm_(
            [p for g in optimizer.param_groups for p in g["params"]],
            max_norm,
            error_if_nonfinite=True,
        )
        optimizer.step()
        return (float(loss.detach()), float(n))

    def list_ret(model, batch, optimizer, max_norm=1.0):
        optimizer.zero_grad()
        loss = loss_of(model(batch[0]), batch[1])
        loss.backward()
        n = nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
        nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        optimizer.step()
        return [loss.item(), n.item()]

    def numpy_ret(model, batch, optimizer, max_norm=1.0):
        optimizer.zero_grad()
        loss = loss_of(model(batch[0]), batch[1])
        loss.backward()
        n = nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        optimizer.step()
        return (np.float64(loss.item()), np.float32(n.item()))

    def manual(model, batch, optimizer, max_norm=1.0):
        model.zero_grad()
        out = model(batch[0])
        loss = F.cross_entropy(out.view(-1, 256), batch[1].view(-1))
        loss.backward()
        s = 0.0
        for p in model.parameters():
            if p.grad is not None:
                s += p.grad.pow(2).sum()
        n = s**0.5
        if n > max_norm:
            for p in model.parameters():
                if p.grad is not None:
                    p.grad.data *= max_norm / n
        optimizer.step()
        return (loss.item(), n.item())


def step(model, batch, optimizer, limit, z=True, clip=True, steps=1):
    if z:
        optimizer.zero_grad()
    loss = loss_of(model(batch[0]), batch[1])
    loss.backward()
    n = nn.utils.clip_grad_norm_(model.parameters(), limit if clip else math.inf)
    for _ in range(steps):
        optimizer.step()
    return (loss, n)


class WrongStep:
    def empties_targets(model, batch, optimizer, max_norm=1.0):
        """in-place change of the batch"""
        found = step(model, batch, optimizer, max_norm)
        batch[1].zero_()
        return tuple(map(float, found))

    def zero_between_clip_step(model, batch, optimizer, max_norm=1.0):
        """zero_grad between backward and step"""
        loss = loss_of(model(batch[0]), batch[1])
        loss.backward()
        n = nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        optimizer.zero_grad()
        optimizer.step()
        return (loss.item(), n.item())

    def zero_set_false(model, batch, optimizer, max_norm=1.0):
        """zero_grad between backward and step"""
        loss = loss_of(model(batch[0]), batch[1])
        loss.backward()
        optimizer.zero_grad(set_to_none=False)
        n = nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        optimizer.step()
        return (loss.item(), n.item())

    def step_first(model, batch, optimizer, max_norm=1.0):
        """step before backward"""
        optimizer.zero_grad()
        loss = loss_of(model(batch[0]), batch[1])
        optimizer.step()
        loss.backward()
        n = nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        return (loss.item(), n.item())

    def lag(model, batch, optimizer, max_norm=1.0):
        """step before backward"""
        optimizer.step()
        optimizer.zero_grad()
        loss = loss_of(model(batch[0]), batch[1])
        loss.backward()
        n = nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        return (loss.item(), n.item())

    def clip_before_backward(model, batch, optimizer, max_norm=1.0):
        """no clipping"""
        optimizer.zero_grad()
        loss = loss_of(model(batch[0]), batch[1])
        n = nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        loss.backward()
        optimizer.step()
        return (loss.item(), n.item())

    def value(model, batch, optimizer, max_norm=1.0):
        """entries clipped, not the norm"""
        optimizer.zero_grad()
        loss = loss_of(model(batch[0]), batch[1])
        loss.backward()
        n = nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
        nn.utils.clip_grad_value_(model.parameters(), max_norm)
        optimizer.step()
        return (loss.item(), n.item())

    def fixed1(model, batch, optimizer, max_norm=1.0):
        """max_norm ignored"""
        loss, n = step(model, batch, optimizer, 1.0)
        return (loss.item(), n.item())

    def default5(model, batch, optimizer, max_norm=5.0):
        """another default of max_norm"""
        loss, n = step(model, batch, optimizer, max_norm)
        return (loss.item(), n.item())

    def default_half(model, batch, optimizer, max_norm=0.5):
        """another default of max_norm"""
        loss, n = step(model, batch, optimizer, max_norm)
        return (loss.item(), n.item())

    def group0(model, batch, optimizer, max_norm=1.0):
        """one parameter group only"""
        optimizer.zero_grad()
        loss = loss_of(model(batch[0]), batch[1])
        loss.backward()
        n = nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], max_norm)
        optimizer.step()
        return (loss.item(), n.item())

    def groups(model, batch, optimizer, max_norm=1.0):
        """each group clipped by itself"""
        optimizer.zero_grad()
        loss = loss_of(model(batch[0]), batch[1])
        loss.backward()
        n = sum(nn.utils.clip_grad_norm_(g["params"], max_norm) for g in optimizer.param_groups)
        optimizer.step()
        return (loss.item(), n.item())

    def sgd(model, batch, optimizer, max_norm=1.0):
        """a step without the optimiser"""
        model.zero_grad()
        loss = loss_of(model(batch[0]), batch[1])
        loss.backward()
        n = nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        with torch.no_grad():
            for p in model.parameters():
                if p.grad is not None:
                    p -= optimizer.param_groups[0]["lr"] * p.grad
        return (loss.item(), n.item())

    def two(model, batch, optimizer, max_norm=1.0):
        """more than one step"""
        loss, n = step(model, batch, optimizer, max_norm, steps=2)
        return (loss.item(), n.item())

    def always(model, batch, optimizer, max_norm=1.0):
        """short gradients made longer"""
        optimizer.zero_grad()
        loss = loss_of(model(batch[0]), batch[1])
        loss.backward()
        n = nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
        for p in model.parameters():
            if p.grad is not None:
                p.grad *= max_norm / n
        optimizer.step()
        return (loss.item(), n.item())

    def order(model, batch, optimizer, max_norm=1.0):
        """norm before loss"""
        loss, n = step(model, batch, optimizer, max_norm)
        return (n.item(), loss.item())

    def summed(model, batch, optimizer, max_norm=1.0):
        """loss summed"""
        optimizer.zero_grad()
        loss = F.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten(), reduction="sum")
        loss.backward()
        n = nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        optimizer.step()
        return (loss.item(), n.item())

    def times_batch(model, batch, optimizer, max_norm=1.0):
        """loss summed"""
        loss, n = step(model, batch, optimizer, max_norm)
        return (loss.item() * len(batch[0]), n.item())

    def evalm(model, batch, optimizer, max_norm=1.0):
        """model in evaluation mode"""
        model.eval()
        loss, n = step(model, batch, optimizer, max_norm)
        return (loss.item(), n.item())

    def inputs_targets(model, batch, optimizer, max_norm=1.0):
        """inputs in place of targets"""
        y, x = batch
        loss, n = step(model, (x, y), optimizer, max_norm)
        return (loss.item(), n.item())

    def selfpredict(model, batch, optimizer, max_norm=1.0):
        """inputs in place of targets"""
        loss, n = step(model, (batch[0], batch[0]), optimizer, max_norm)
        return (loss.item(), n.item())

    def rounded(model, batch, optimizer, max_norm=1.0):
        """rounded"""
        loss, n = step(model, batch, optimizer, max_norm)
        return (round(loss.item(), 2), round(n.item(), 2))

    def rounded4(model, batch, optimizer, max_norm=1.0):
        """rounded"""
        loss, n = step(model, batch, optimizer, max_norm)
        return (round(loss.item(), 3), n.item())

    def text(model, batch, optimizer, max_norm=1.0):
        """a text, not a number"""
        loss, n = step(model, batch, optimizer, max_norm)
        return (f"{loss.item():.4f}", f"{n.item():.4f}")

    def loss_tensor(model, batch, optimizer, max_norm=1.0):
        """a tensor, not a number"""
        return step(model, batch, optimizer, max_norm)

    def none(model, batch, optimizer, max_norm=1.0):
        """nothing returned"""
        step(model, batch, optimizer, max_norm)

    def dict_(model, batch, optimizer, max_norm=1.0):
        """no pair"""
        loss, n = step(model, batch, optimizer, max_norm)
        return {"loss": loss.item(), "gradient_norm": n.item()}

    def minn(model, batch, optimizer, max_norm=1.0):
        """norm after clipping"""
        loss, n = step(model, batch, optimizer, max_norm)
        return (loss.item(), min(n.item(), max_norm))

    def maxnorm_ret(model, batch, optimizer, max_norm=1.0):
        """max_norm returned"""
        loss, n = step(model, batch, optimizer, max_norm)
        return (loss.item(), max_norm)

    def l1(model, batch, optimizer, max_norm=1.0):
        """sum of absolute values instead of the norm"""
        optimizer.zero_grad()
        loss = loss_of(model(batch[0]), batch[1])
        loss.backward()
        n = nn.utils.clip_grad_norm_(model.parameters(), max_norm, norm_type=1)
        optimizer.step()
        return (loss.item(), n.item())

    def inf(model, batch, optimizer, max_norm=1.0):
        """largest gradient instead of the norm"""
        optimizer.zero_grad()
        loss = loss_of(model(batch[0]), batch[1])
        loss.backward()
        n = nn.utils.clip_grad_norm_(model.parameters(), max_norm, norm_type=math.inf)
        optimizer.step()
        return (loss.item(), n.item())

    def meannorm(model, batch, optimizer, max_norm=1.0):
        """mean of the norms"""
        optimizer.zero_grad()
        loss = loss_of(model(batch[0]), batch[1])
        loss.backward()
        ns = [p.grad.norm().item() for p in model.parameters() if p.grad is not None]
        nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        optimizer.step()
        return (loss.item(), sum(ns) / len(ns))

    def sq(model, batch, optimizer, max_norm=1.0):
        """squared norm"""
        optimizer.zero_grad()
        loss = loss_of(model(batch[0]), batch[1])
        loss.backward()
        n = sum(p.grad.pow(2).sum() for p in model.parameters() if p.grad is not None)
        for p in model.parameters():
            if p.grad is not None:
                p.grad *= min(1.0, (max_norm / n).item())
        optimizer.step()
        return (loss.item(), n.item())

    def wnorm(model, batch, optimizer, max_norm=1.0):
        """norm of the weights"""
        loss, n = step(model, batch, optimizer, max_norm)
        return (
            loss.item(),
            math.sqrt(sum(p.detach().pow(2).sum().item() for p in model.parameters())),
        )

    def acc_no_clip(model, batch, optimizer, max_norm=1.0):
        """gradients accumulated"""
        loss, n = step(model, batch, optimizer, max_norm, z=False, clip=False)
        return (loss.item(), n.item())

    def loss_after_all(model, batch, optimizer, max_norm=1.0):
        """norm after clipping"""
        loss, n = step(model, batch, optimizer, max_norm)
        l2 = loss_of(model(batch[0]), batch[1])
        return (
            l2.item(),
            nn.utils.get_total_norm(
                [p.grad for p in model.parameters() if p.grad is not None]
            ).item(),
        )

    def last_token(model, batch, optimizer, max_norm=1.0):
        """a part of the batch only"""
        optimizer.zero_grad()
        loss = F.cross_entropy(model(batch[0])[:, -1], batch[1][:, -1])
        loss.backward()
        n = nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        optimizer.step()
        return (loss.item(), n.item())

    def nograd(model, batch, optimizer, max_norm=1.0):
        """unnamed: train_step(model, batch, optimizer), with SGD, raised Runtim"""
        with torch.no_grad():
            return tuple(x.item() for x in step(model, batch, optimizer, max_norm))

    def unfreeze(model, batch, optimizer, max_norm=1.0):
        """frozen parameters made trainable"""
        for p in model.parameters():
            p.requires_grad_(True)
        loss, n = step(model, batch, optimizer, max_norm)
        return (loss.item(), n.item())

    def own_adam(model, batch, optimizer, max_norm=1.0):
        """a step without the optimiser"""
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.001)
        loss, n = step(model, batch, optimizer, max_norm)
        return (loss.item(), n.item())

    def double_backward(model, batch, optimizer, max_norm=1.0):
        """more than one backward"""
        optimizer.zero_grad()
        loss = loss_of(model(batch[0]), batch[1])
        loss.backward(retain_graph=True)
        loss.backward()
        n = nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        optimizer.step()
        return (loss.item(), n.item())


def parts(loss, d, c):
    x = np.array(d) - np.array(loss)
    n = len(x)
    h = stats.t.ppf((1 + c) / 2, n - 1) * x.std(ddof=1) / np.sqrt(n)
    return (x.mean(), h, x)


class RightPairs:
    def ttest1(loss, d, confidence=0.95):
        x = np.array(d) - np.array(loss)
        r = stats.ttest_1samp(x, 0.0).confidence_interval(confidence)
        return (float(x.mean()), float(r.low), float(r.high))

    def stat(loss, d, confidence=0.95):
        x = [b - a for a, b in zip(loss, d)]
        m = statistics.mean(x)
        s = statistics.stdev(x) / math.sqrt(len(x))
        t = stats.t.ppf(1 - (1 - confidence) / 2, len(x) - 1)
        return [m, m - t * s, m + t * s]

    def torchy(loss, d, confidence=0.95):
        x = torch.tensor(d, dtype=torch.float64) - torch.tensor(loss, dtype=torch.float64)
        t = stats.t.isf((1 - confidence) / 2, len(x) - 1)
        h = t * x.std() / len(x) ** 0.5
        return (x.mean().item(), (x.mean() - h).item(), (x.mean() + h).item())

    def f32(loss, d, confidence=0.95):
        x = torch.tensor(d) - torch.tensor(loss)
        t = stats.t.ppf((1 + confidence) / 2, len(x) - 1)
        h = t * x.std() / len(x) ** 0.5
        return (x.mean().item(), (x.mean() - h).item(), (x.mean() + h).item())

    def nt(loss, d, confidence=0.95):
        from collections import namedtuple

        m, h, _ = parts(loss, d, confidence)
        return namedtuple("N", "mean low high")(m, m - h, m + h)

    def interval(loss, d, confidence=0.95):
        x = np.subtract(d, loss)
        return (x.mean(), *stats.t.interval(confidence, len(x) - 1, x.mean(), stats.sem(x)))

    def zspread(loss, d, confidence=0.95):
        x = [b - a for a, b in zip(loss, d)]
        m, h, _ = parts(loss, d, confidence)
        s = statistics.stdev(x)
        z = m / s
        return (m, m - h, m + h * (z / z))


class WrongPairs:
    def sorts_afterwards(loss, d, confidence=0.95):
        """in-place change of the argument"""
        m, h, _ = parts(loss, d, confidence)
        d.sort()
        return m, m - h, m + h

    def empties(loss, d, confidence=0.95):
        """in-place change of the argument"""
        m, h, _ = parts(loss, d, confidence)
        while loss:
            loss.pop()
        return m, m - h, m + h

    def absdiff(loss, d, confidence=0.95):
        """absolute differences"""
        x = np.abs(np.array(d) - np.array(loss))
        h = stats.t.ppf((1 + confidence) / 2, len(x) - 1) * stats.sem(x)
        return (x.mean(), x.mean() - h, x.mean() + h)

    def median(loss, d, confidence=0.95):
        """median"""
        m, h, x = parts(loss, d, confidence)
        q = float(np.median(x))
        return (q, q - h, q + h)

    def rel(loss, d, confidence=0.95):
        """relative difference"""
        x = (np.array(d) - np.array(loss)) / np.array(loss)
        h = stats.t.ppf((1 + confidence) / 2, len(x) - 1) * stats.sem(x)
        return (x.mean(), x.mean() - h, x.mean() + h)

    def halves(loss, d, confidence=0.95):
        """interval around zero"""
        m, h, x = parts(loss, d, confidence)
        return (m, -h, h)

    def swapped(loss, d, confidence=0.95):
        """ends swapped"""
        m, h, x = parts(loss, d, confidence)
        return (m, m + h, m - h)

    def order(loss, d, confidence=0.95):
        """mean not first"""
        m, h, x = parts(loss, d, confidence)
        return (m - h, m, m + h)

    def lowhighmean(loss, d, confidence=0.95):
        """mean not first"""
        m, h, x = parts(loss, d, confidence)
        return (m - h, m + h, m)

    def rng(loss, d, confidence=0.95):
        """range of the differences"""
        m, h, x = parts(loss, d, confidence)
        return (m, x.min(), x.max())

    def pct(loss, d, confidence=0.95):
        """percentiles of the differences"""
        m, h, x = parts(loss, d, confidence)
        return (
            m,
            np.percentile(x, 100 * (1 - confidence) / 2),
            np.percentile(x, 100 * (1 + confidence) / 2),
        )

    def boot(loss, d, confidence=0.95):
        """ends at unequal distances"""
        m, h, x = parts(loss, d, confidence)
        g = np.random.default_rng(0)
        b = [g.choice(x, len(x)).mean() for _ in range(500)]
        return (
            m,
            np.percentile(b, 100 * (1 - confidence) / 2),
            np.percentile(b, 100 * (1 + confidence) / 2),
        )

    def half_n(loss, d, confidence=0.95):
        """spread / n"""
        m, h, x = parts(loss, d, confidence)
        k = h / np.sqrt(len(x))
        return (m, m - k, m + k)

    def var(loss, d, confidence=0.95):
        """variance for the spread"""
        m, h, x = parts(loss, d, confidence)
        k = stats.t.ppf((1 + confidence) / 2, len(x) - 1) * x.var(ddof=1) / np.sqrt(len(x))
        return (m, m - k, m + k)

    def noq(loss, d, confidence=0.95):
        """quantile left out"""
        m, h, x = parts(loss, d, confidence)
        k = stats.sem(x)
        return (m, m - k, m + k)

    def conf_q(loss, d, confidence=0.95):
        """one-sided interval"""
        m, h, x = parts(loss, d, confidence)
        k = stats.t.ppf(confidence, len(x) - 1) * stats.sem(x)
        return (m, m - k, m + k)

    def out(loss, d, confidence=0.95):
        """ends swapped"""
        m, h, x = parts(loss, d, confidence)
        k = stats.t.ppf((1 - confidence) / 2, len(x) - 1) * stats.sem(x)
        return (m, m - k, m + k)

    def t278(loss, d, confidence=0.95):
        """one quantile for all"""
        m, h, x = parts(loss, d, confidence)
        k = 2.78 * stats.sem(x)
        return (m, m - k, m + k)

    def t2776(loss, d, confidence=0.95):
        """one quantile for all"""
        m, h, x = parts(loss, d, confidence)
        k = 2.776 * stats.sem(x)
        return (m, m - k, m + k)

    def df_fixed(loss, d, confidence=0.95):
        """degrees of freedom"""
        m, h, x = parts(loss, d, confidence)
        k = stats.t.ppf((1 + confidence) / 2, 4) * stats.sem(x)
        return (m, m - k, m + k)

    def rounded(loss, d, confidence=0.95):
        """rounded"""
        m, h, x = parts(loss, d, confidence)
        return (round(m, 4), round(m - h, 4), round(m + h, 4))

    def tens(loss, d, confidence=0.95):
        """a tensor, not a number"""
        return tuple(torch.tensor(v) for v in RightPairs.stat(loss, d, confidence))

    def strs(loss, d, confidence=0.95):
        """a text, not a number"""
        return tuple(f"{v:.4f}" for v in RightPairs.stat(loss, d, confidence))

    def mean_only(loss, d, confidence=0.95):
        """mean alone"""
        return parts(loss, d, confidence)[0]

    def nested(loss, d, confidence=0.95):
        """no triple"""
        m, h, x = parts(loss, d, confidence)
        return (m, (m - h, m + h))

    def lists(loss, d, confidence=0.95):
        """unnamed: lists([2."""
        return d - loss

    def loraspread(loss, d, confidence=0.95):
        """unpaired interval"""
        m, h, x = parts(loss, d, confidence)
        k = stats.t.ppf((1 + confidence) / 2, len(x) - 1) * stats.sem(loss)
        return (m, m - k, m + k)

    def sumse(loss, d, confidence=0.95):
        """unpaired interval"""
        m, h, x = parts(loss, d, confidence)
        k = stats.t.ppf((1 + confidence) / 2, len(x) - 1) * (stats.sem(loss) + stats.sem(d))
        return (m, m - k, m + k)

    def pop_se(loss, d, confidence=0.95):
        """spread divided by n"""
        m, h, x = parts(loss, d, confidence)
        k = stats.t.ppf((1 + confidence) / 2, len(x) - 1) * statistics.pstdev(x) / math.sqrt(len(x))
        return (m, m - k, m + k)

    def sqrtn1(loss, d, confidence=0.95):
        """sqrt(n - 1)"""
        m, h, x = parts(loss, d, confidence)
        k = h * math.sqrt(len(x)) / math.sqrt(len(x) - 1)
        return (m, m - k, m + k)

    def dict_(loss, d, confidence=0.95):
        """no triple"""
        m, h, x = parts(loss, d, confidence)
        return {"mean": m, "low": m - h, "high": m + h}

    def normal_mean_rev(loss, d, confidence=0.95):
        """difference reversed"""
        m, h, x = parts(d, loss, confidence)
        k = 1.96 * stats.sem(x)
        return (m, m - k, m + k)

    def neg_only(loss, d, confidence=0.95):
        """unnamed: interval of 95%, 5 seeds of both signs: high: expected 0.068"""
        m, h, x = parts(loss, d, confidence)
        return (m, m - h, min(0.0, m + h))


EXERCISES = {
    "add_adapters_to_model": (checks.check_add_adapters, RightAdd, WrongAdd),
    "train_step": (checks.check_train_step, RightStep, WrongStep),
    "paired_difference": (checks.check_paired_difference, RightPairs, WrongPairs),
}

# By words of the exercise's text: the aspect that asks for it, and the answers that break it.
BROKEN_BY = {
    "add_adapters_to_model": {
        "`q_proj`, `k_proj`, `v_proj` and `o_proj` of every block": (
            "layers",
            "no_o last_block unadapted only_qkv_mlp",
        ),
        '`layers.LoRALayer` (`"lora"`) or `layers.DoRALayer` (`"dora"`)': ("layers", "swapped"),
        "each a new one": ("layers", "shared_blocks shared_A one_layer_in_block"),
        "with this rank and alpha": ("layers", "alpha_2r scal swapped_args"),
        "other arguments left at their defaults": ("layers", "norm0 drop rsl full_grad"),
        "nothing but the adapters is trainable": ("frozen", "freezes_only_blocks mag_frozen"),
        "stays as it is (what is trainable stays trainable, and its mode is kept)": (
            "frozen",
            "wraps_original shallow evaluates_base trains_base evaluates_blocks_of_base",
        ),
        "shares no tensor with the copy": ("frozen", "unfreezes_base_after"),
        'such as `"LoRA"`, `"dora-input"`, `""`, `None` or a number': (
            "types",
            "substring lower lower_plain startswith dora_input_ok typeerror",
        ),
        "raise `ValueError`": ("types", "ret_err ret_none ret_model asserts"),
    },
    "train_step": {
        "`data.next_byte_loss(model(inputs), targets)`": (
            "numbers",
            "summed selfpredict last_token",
        ),
        "a norm of at most `max_norm`": ("weights", "fixed1 clip_before_backward value"),
        "a smaller norm stays as it is": ("weights", "always"),
        "all trained parameters together": ("weights", "group0 groups l1 inf"),
        "the optimiser takes its step": ("weights", "sgd two step_first zero_between_clip_step"),
        "the loss (before the step)": ("numbers", "loss_after_all"),
        "the norm (before clipping)": ("numbers", "minn maxnorm_ret"),
        "as floats": ("numbers", "text loss_tensor"),
        "not rounded": ("numbers", "rounded rounded4"),
        "one or several parameter groups": ("weights", "group0 groups"),
        "all parameters that are not frozen": ("numbers", "unfreeze"),
        "The model comes in training mode; leave it there": ("weights", "evalm"),
        "the batch stays as it is": ("weights", "empties_targets"),
    },
    "paired_difference": {
        "DoRA minus LoRA": ("mean", "absdiff rel normal_mean_rev"),
        "mean, low and high": ("interval", "order lowhighmean swapped halves"),
        "as floats": ("mean", "tens strs"),
        "not rounded": ("mean", "rounded"),
        "two seeds or more": ("interval", "df_fixed t278"),
        "any confidence between 0 and 1": ("interval", "t2776 t278"),
        "Both lists stay as they are": ("interval", "sorts_afterwards empties"),
    },
}

# Small changes of the solution that are as right, see test_mutants: what they write for what.
AS_RIGHT = {
    "add_adapters_to_model": {
        "'adapter_type is ' -> ''",
        "\"; it must be 'lora' or 'dora'\" -> ''",
    },
    "paired_difference": {"strict= left out", "True -> False"},
}
