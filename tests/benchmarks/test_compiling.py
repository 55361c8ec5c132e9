import pytest
import torch
from diffusers import UNet2DConditionModel

from benchmarks.sheet.compiling import Bucketed


@torch.inference_mode()
def test_a_compiled_network_answers_any_number_of_rows_as_it_does_uncompiled() -> None:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        block_out_channels=(8, 16), down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), layers_per_block=1, norm_num_groups=4,
        cross_attention_dim=8, attention_head_dim=2, sample_size=8,
    ).eval()  # fmt: skip
    # one graph, as inductor gets it; what inductor makes of it takes minutes to compile
    bucketed = Bucketed(torch.compile(unet, backend="eager", fullgraph=True, dynamic=False), (3, 2))
    for rows in (1, 2, 3):
        asked = torch.randn(rows, 4, 8, 8), torch.rand(rows) * 999, torch.randn(rows, 77, 8)
        [expected] = unet(*asked, return_dict=False)
        [found] = bucketed(*asked, return_dict=False)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError):
        bucketed(*(tensor[:1].expand(4, *tensor.shape[1:]) for tensor in asked), return_dict=False)
