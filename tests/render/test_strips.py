from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from farm.render.strips import Strips, decode_in_strips, whole_of
from farm.weights.checkpoint import Networks


@pytest.fixture(scope="module")
def larger() -> Any:
    """Shaped as Stable Diffusion's, at an eighth of its channels, with random weights."""
    torch.manual_seed(3)
    kinds = {"down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}
    vae = AutoencoderKL(block_out_channels=[16, 32, 64, 64], layers_per_block=2, norm_num_groups=8, **kinds)
    return vae.eval().requires_grad_(False)


def uneven(*shape: int) -> torch.Tensor:
    """Latents whose halves have other means, as pictures do: tiles that normalize by themselves differ."""
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(5))
    latents[..., : shape[-2] // 3, :] += 3
    return latents


@torch.inference_mode()
def both(vae: Any, latents: torch.Tensor, most: int) -> tuple[torch.Tensor, torch.Tensor]:
    return vae.decode(latents, return_dict=False)[0], decode_in_strips(vae, latents, most)


@pytest.mark.parity
@pytest.mark.parametrize("most", [1, 10_000, 100_000, 10**9])
@pytest.mark.parametrize("shape", [(1, 4, 16, 8), (2, 4, 5, 13)], ids=str)
def test_a_picture_is_the_one_in_one_piece(
    shape: tuple[int, ...], most: int, networks: Networks, larger: Any
) -> None:
    for vae in (networks.vae, larger):
        whole, in_strips = both(vae, uneven(*shape), most)
        torch.testing.assert_close(in_strips, whole, rtol=0, atol=2e-5 * float(whole.abs().max()))


def test_tiles_of_diffusers_are_another_picture(networks: Networks) -> None:
    """Which is why these are not used."""
    whole, in_strips = both(networks.vae, uneven(1, 4, 16, 16), 10_000)
    networks.vae.enable_tiling()
    try:
        with torch.inference_mode():
            tiled = networks.vae.decode(uneven(1, 4, 16, 16), return_dict=False)[0]
    finally:
        networks.vae.disable_tiling()
    assert (tiled - whole).abs().mean() > 1000 * (in_strips - whole).abs().mean()


def test_no_layer_sees_more_than_a_strip(networks: Networks) -> None:
    seen: list[int] = []

    def layer(strip: torch.Tensor) -> torch.Tensor:
        seen.append(strip.shape[2])
        return strip

    whole = whole_of(torch.randn(1, 3, 20, 10))
    again = Strips(torch.device("cpu"), 3 * 10 * 4 * 6).over(layer, whole)
    assert seen == [7, 8, 8, 3]  # 6 rows and what lies beside them
    assert torch.equal(again.values, whole.values)
    moments = (again.mean, again.variance), (whole.mean, whole.variance)
    torch.testing.assert_close(*moments, rtol=1e-6, atol=1e-6)


class Peak(TorchDispatchMode):
    """Counts the bytes in use on a device that has none: what is computed there is but shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        with self:
            if (answer := func.decompose(*args, **kwargs)) is not NotImplemented:
                return answer
        leaves = func is torch.ops.aten._to_copy.default and str(kwargs.get("device")) == "cpu"
        if leaves:
            return torch.empty(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        answer = func(*args, **kwargs)
        for tensor in tree_leaves(answer):
            if isinstance(tensor, torch.Tensor) and tensor.device == META:
                reference = StorageWeakRef(storage := tensor.untyped_storage())
                self._live.setdefault(reference.cdata, (reference, storage.nbytes()))
        self._live = {key: entry for key, entry in self._live.items() if not entry[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self._live.values()))
        return answer


META = torch.device("meta")


@pytest.mark.slow
def test_strips_need_little_memory_whatever_the_size() -> None:
    """Of a VAE as large as Stable Diffusion's, beside its weights; what is left grows as the latents do."""
    kinds = {"down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}
    with META:
        vae = AutoencoderKL(block_out_channels=[128, 256, 512, 512], layers_per_block=2, **kinds).half()
    peaks = {}
    for side in (64, 128):
        latents = torch.empty(1, 4, side, side, dtype=torch.float16, device=META)
        with torch.inference_mode(), Peak() as whole:
            vae.decode(latents)
        with torch.inference_mode(), Peak() as strips:
            decode_in_strips(vae, latents)
        peaks[side] = (whole.peak / 2**20, strips.peak / 2**20)
    assert peaks[64][0] > 450 and peaks[128][0] > 1900
    assert peaks[64][1] < 250 and peaks[128][1] < 250


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_as_near_to_the_exact_picture_as_in_one_piece(
    dtype: torch.dtype, networks: Networks
) -> None:
    """They round at other places, and as often."""
    exact, _ = both(networks.vae, uneven(1, 4, 12, 8), 10_000)
    halved = AutoencoderKL.from_config(networks.vae.config)
    halved.load_state_dict(networks.vae.state_dict())
    whole, in_strips = both(halved.to(dtype).eval(), uneven(1, 4, 12, 8).to(dtype), 10_000)
    off, ours = ((one.float() - exact).abs().mean() for one in (whole, in_strips))
    assert 0 < ours < 1.3 * off


def test_other_decoders_are_refused(networks: Networks) -> None:
    vae = AutoencoderKL(block_out_channels=[8], norm_num_groups=4, up_block_types=["AttnUpDecoderBlock2D"])
    with pytest.raises(TypeError, match="AutoencoderKL cannot be run in strips"):
        decode_in_strips(vae, torch.zeros(1, 4, 2, 2))
