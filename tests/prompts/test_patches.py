import pytest

from farm.prompts.patches import OnUnet, Patches, patches_of, tag_of


@pytest.mark.parametrize(
    ("prompt", "text", "unet"),
    [
        ("a cat", (), ()),
        ("<lora:a>", (("a", 1.0),), (("a", 1.0),)),
        ("a <lora:a:0.5> cat", (("a", 0.5),), (("a", 0.5),)),
        ("<lyco: a : -2 >", (("a", -2.0),), (("a", -2.0),)),
        ("<lora:a:0.5:0.7>", (("a", 0.5),), (("a", 0.7),)),
        ("<lora:a:te=0.5:unet=0.7>", (("a", 0.5),), (("a", 0.7),)),
        ("<lora:a:unet=0.7>", (("a", 1.0),), (("a", 0.7),)),
        ("<lora:a:te=0.7>", (("a", 0.7),), (("a", 0.7),)),
        ("<lora:a:0.5:dyn=4>", (("a", 0.5),), (("a", 0.5),)),
        ("<lora:a:0>", (), ()),
        ("<lora:a:0:1>", (), (("a", 1.0),)),
        ("<lora:a:1:0>", (("a", 1.0),), ()),
        ("<lora:b:1><lora:a:2>", (("a", 2.0), ("b", 1.0)), (("a", 2.0), ("b", 1.0))),
        ("<lora:a:1> AND <lora:a:0.5>", (("a", 1.5),), (("a", 1.5),)),
        ("<lora:a:1><lora:a:-1>", (), ()),
        ("<lora:a:much>", (("a", 1.0),), (("a", 1.0),)),
        ("<lora::1>", (), ()),
        ("<other:a:1>", (), ()),
    ],
)
def test_loras_have_weights_for_text_encoder_and_unet(prompt, text, unet):
    """As A1111's extra_networks_lora.py reads its arguments."""
    found = patches_of(prompt)
    assert (found.on_text, found.on_unet.loras) == (text, unet)


def test_hypernetworks_act_in_the_order_of_the_prompt():
    found = patches_of("<hypernet:b:0.5> a cat <hypernet:a><hypernet:c:0>")
    assert found == Patches(OnUnet(hypernetworks=(("b", 0.5), ("a", 1.0))))
    assert found.hypernetworks == ("a", "b") and found.loras == ()


def test_names_are_what_rows_of_a_call_have_in_common():
    one, other = patches_of("<lora:a:1><lora:b:2>"), patches_of("<lora:b:1><lora:a:3>")
    assert one.on_unet.names == other.on_unet.names != patches_of("<lora:a:1>").on_unet.names
    assert patches_of("<hypernet:a:1>").on_unet.names != patches_of("<lora:a:1>").on_unet.names


def test_a_tag_is_read_as_it_is_written():
    assert patches_of(tag_of("lora", "ink A", 0.25)).on_unet.loras == (("ink A", 0.25),)
    assert tag_of("hypernet", "pen", 1.0) == "<hypernet:pen:1>"
