import pytest

from farm.diffusers_schedulers import BadScheduler
from farm.sampling import AUTOMATIC, BUILT_IN
from farm.scheduler_names import chosen

LONG = "x" * 5000
MULTISTEP = "diffusers:DPMSolverMultistepScheduler"


def refusal(name: str) -> str:
    with pytest.raises(BadScheduler) as caught:
        BUILT_IN.find(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("written", "spelling"),
    [
        (MULTISTEP, MULTISTEP),
        ("Diffusers:dpmsolvermultistep", MULTISTEP),
        (" diffusers: DPMSolverMultistep ( ) ", MULTISTEP),
        (
            "diffusers:DPMSolverMultistep(use_karras_sigmas=True, solver_order=3.0)",
            f"{MULTISTEP}(solver_order=3, use_karras_sigmas=true)",
        ),
        (
            "diffusers:DPMSolverMultistep(algorithm_type='sde-dpmsolver++',)",
            f"{MULTISTEP}(algorithm_type=sde-dpmsolver++)",
        ),
        ("diffusers:DPMSolverMultistep(flow_shift=3)", f"{MULTISTEP}(flow_shift=3.0)"),
        ("diffusers:DPMSolverMultistep(lambda_min_clipped=-inf)", f"{MULTISTEP}(lambda_min_clipped=-inf)"),
        ("diffusers:DPMSolverMultistep(variance_type=NULL)", f"{MULTISTEP}(variance_type=null)"),
        ("diffusers:ddim(trained_betas=[ 0.1,2.0 ])", "diffusers:DDIMScheduler(trained_betas=[0.1, 2])"),
        ('diffusers:LCM(timestep_spacing="a b")', 'diffusers:LCMScheduler(timestep_spacing="a b")'),
    ],
)
def test_one_canonical_spelling(written: str, spelling: str) -> None:
    row, schedule = BUILT_IN.find(written)
    assert (row.name, schedule) == (spelling, AUTOMATIC)
    assert BUILT_IN.find(spelling)[0] == row
    assert row.algorithm == "diffusers" and not row.takes_schedules


def test_the_row_says_what_the_class_and_its_options_say() -> None:
    row = BUILT_IN["diffusers:DPMSolverMultistep(algorithm_type=sde-dpmsolver++, solver_order=3)"]
    assert (row.order, row.stochastic, row.evaluations(20)) == (3, True, 20)
    assert dict(row.fixed["chosen"].options) == {"algorithm_type": "sde-dpmsolver++", "solver_order": 3}
    row = BUILT_IN["diffusers:HeunDiscrete"]
    assert (row.order, row.stochastic, row.evaluations(20), row.options) == (2, False, 39, ())
    assert BUILT_IN["diffusers:DDIM"].options == ("eta",) and BUILT_IN["diffusers:DDIM"].eta == 0
    assert BUILT_IN["diffusers:EulerDiscrete"].options == ("s_churn", "s_tmin", "s_tmax", "s_noise")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("diffusers:DDPMSolverMultistep", ["'DDPMSolverMultistep'", "did you mean 'DPMSolverMultistep'"]),
        ("diffusers:", ["diffusers has no scheduler ''"]),
        ("diffusers:DDIM(", ["ClassName(option=value"]),
        ("diffusers:DDIM(3)", ["'3' is not written option=value"]),
        ("diffusers:DDIM(clip_smaple=false)", ["'clip_smaple'", "did you mean 'clip_sample'"]),
        ("diffusers:UniPC", ["'UniPC'", "did you mean 'UniPCMultistep'"]),
        ("diffusers:UniPCMultistep(order=3)", ["'order'", "did you mean 'solver_order'"]),
        ("diffusers:DDIM(eta=1)", ["no option 'eta'; eta is a setting of the job"]),
        ("diffusers:DDIM(etta=1)", ["no option 'etta'; it has num_train_timesteps"]),
        ("diffusers:DDIM(generator=1)", ["no option 'generator'; it has"]),
        ("diffusers:PNDM(zzz=1)", ["'zzz'", "it has num_train_timesteps, beta_start"]),
        ("diffusers:DDIM(clip_sample=1)", ["clip_sample=1", "true or false"]),
        ("diffusers:DDIM(clip_sample=true, CLIP_SAMPLE=false)", ["clip_sample is written twice"]),
        ("diffusers:DDIM(steps_offset=1.5)", ["steps_offset=1.5", "a whole number"]),
        ("diffusers:DDIM(steps_offset=inf)", ["a whole number"]),
        ("diffusers:DDIM(beta_start=low)", ["beta_start=low", "a number"]),
        ("diffusers:DDIM(beta_start=$)", ["'$' is no number"]),
        ("diffusers:DDIM(beta_start= )", ["beta_start"]),
        ("diffusers:DDIM(trained_betas=[1,,2])", ["'' is no number"]),
        ("diffusers:DDIM(timestep_spacing=even)", ["leading or trailing or linspace"]),
        ("diffusers:SASolver(tau_func=x)", ["only null"]),
        ("diffusers:DDPM(variance_type=learned)", ["needs a network that predicts a variance"]),
        ("diffusers:FlowMatchEulerDiscrete(use_dynamic_shifting=true)", ["the picture's size"]),
        ("diffusers:RePaint", ["RePaintScheduler", "a picture and a mask"]),
        ("diffusers:VQDiffusion", ["tokens"]),
        ("diffusers:KarrasVe", ["two sigmas"]),
        ("diffusers:CogVideoXDPM", ["old_pred_original_sample and timestep_back"]),
        ("diffusers:RFD4Proteina", ["emit_mask"]),
    ],
)
def test_mistakes_are_named_in_one_line(name: str, words: list[str]) -> None:
    message = refusal(name)
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    "name",
    [
        f"diffusers:{LONG}",
        f"diffusers:DDIM({LONG})",
        f"diffusers:DDIM({LONG}=1)",
        f"diffusers:DDIM(clip_sample={LONG})",
        f"diffusers:DDIM(clip_sample={LONG}$)",
        f"diffusers:DDIM({LONG}",
        f"diffusers:DDIM(clip_sample=true, clip_sample=true, timestep_spacing={LONG})",
    ],
)
def test_long_names_are_cut(name: str) -> None:
    assert len(refusal(name)) < 400


def test_a_plain_name_that_is_unknown_is_still_a_key_error() -> None:
    with pytest.raises(KeyError):
        BUILT_IN.find("diffuser")


def test_a_name_is_read_once() -> None:
    assert chosen(f"{MULTISTEP}(solver_order=3)") is chosen(f"{MULTISTEP}(solver_order=3)")
