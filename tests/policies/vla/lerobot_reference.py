"""What LeRobot computes with small random SmolVLA and pi0 policies; run by a Python that has lerobot, not by pytest.

Usage: python lerobot_reference.py FOLDER smolvla|pi0
FOLDER gets `model/` and `vlm/` as they are published, and `case.safetensors` with inputs, noise and actions.
"""

# lerobot is in another Python than the one that checks types.
# pyright: reportMissingImports=false

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
from lerobot.configs.types import FeatureType, PolicyFeature
from safetensors.torch import save_file

WORDS = ["<pad>", "<unk>", "<bos>", "push", "the", "block", "left", "right", "\n"]
TASKS = ["push the block left", "push right"]
STATE, ACTION, CHUNK, ROWS = 6, 5, 7, 2
CAMERAS = {"observation.images.top": (3, 40, 56), "observation.images.wrist": (3, 48, 30)}


def write_tokenizer(folder: Path) -> None:
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(" "), "removed"), pre_tokenizers.Split(Regex("\n"), "isolated")]
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", unk_token="<unk>")
    fast.save_pretrained(folder)


def features() -> dict:
    seen = {name: PolicyFeature(FeatureType.VISUAL, shape) for name, shape in CAMERAS.items()}
    return {
        "input_features": {**seen, "observation.state": PolicyFeature(FeatureType.STATE, (STATE,))},
        "output_features": {"action": PolicyFeature(FeatureType.ACTION, (ACTION,))},
    }


def statistics(generator: torch.Generator) -> dict:
    def some(width: int) -> dict:
        return {
            "mean": torch.randn(width, generator=generator),
            "std": torch.rand(width, generator=generator) + 0.5,
        }

    return {"observation.state": some(STATE), "action": some(ACTION)}


def shaken(policy: torch.nn.Module, generator: torch.Generator) -> None:
    """Weights that no part starts with: norms away from 1, biases away from 0."""
    with torch.no_grad():
        for parameter in policy.parameters():
            spread = 0.3 if parameter.ndim == 1 else 0.7 / parameter[0].numel() ** 0.5
            noise = spread * torch.randn(parameter.shape, generator=generator)
            parameter.copy_(parameter + noise if parameter.ndim == 1 else noise)


def smolvla(folder: Path) -> tuple:
    import lerobot.policies.smolvla.smolvlm_with_expert as module
    from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
    from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
    from lerobot.policies.smolvla.processor_smolvla import make_smolvla_pre_post_processors
    from transformers import SmolVLMConfig
    from transformers.models.smolvlm.modeling_smolvlm import SmolVLMVisionEmbeddings

    text = {"model_type": "llama", "hidden_size": 48, "head_dim": 10, "num_attention_heads": 6}
    text |= {"num_key_value_heads": 2, "intermediate_size": 48, "num_hidden_layers": 5}
    text |= {"vocab_size": 32, "rms_norm_eps": 1e-5, "pad_token_id": 0}
    vision = {"hidden_size": 24, "intermediate_size": 56, "num_hidden_layers": 2, "num_attention_heads": 3}
    vision |= {"image_size": 32, "patch_size": 4}
    SmolVLMConfig(text_config=text, vision_config=vision, scale_factor=2).save_pretrained(folder)
    stub = SimpleNamespace(tokenizer=SimpleNamespace(fake_image_token_id=0, global_image_token_id=0))
    module.AutoProcessor = SimpleNamespace(from_pretrained=lambda *a, **k: stub)
    if "as-installed" not in sys.argv:
        # transformers 4.55 to 4.57 shift positions by one in float32 (their pull request 41371); training did not.
        SmolVLMVisionEmbeddings.forward = lambda self, pixel_values, patch_attention_mask: (
            self.patch_embedding(pixel_values).flatten(2).transpose(1, 2) + self.position_embedding.weight
        )
    config = SmolVLAConfig(
        **features(),
        vlm_model_name=str(folder),
        num_vlm_layers=4,
        chunk_size=CHUNK,
        n_action_steps=CHUNK,
        resize_imgs_with_padding=(32, 32),
        tokenizer_max_length=8,
        device="cpu",
    )
    return SmolVLAPolicy(config), config, make_smolvla_pre_post_processors


def pi0(folder: Path) -> tuple:
    import lerobot.policies.pi0.modeling_pi0 as module
    import lerobot.policies.pi0.processor_pi0 as processor
    from lerobot.policies.pi0.configuration_pi0 import PI0Config

    sizes = {"gemma_2b": (40, 48), "gemma_300m": (24, 32)}
    module.get_gemma_config = lambda variant: module.GemmaConfig(
        width=sizes[variant][0], depth=3, mlp_dim=sizes[variant][1], num_heads=8, num_kv_heads=1, head_dim=8
    )
    whole, expert = module.PaliGemmaForConditionalGeneration, module.GemmaForCausalLM

    def small(config):
        vision = {"hidden_size": 32, "intermediate_size": 56, "num_hidden_layers": 2}
        vision |= {"num_attention_heads": 16, "image_size": 28, "patch_size": 7, "projection_dim": 40}
        for name, value in vision.items():
            setattr(config.vision_config, name, value)
        config.text_config.vocab_size = 32
        config.image_token_id = config.image_token_index = 31
        return whole(config=config)

    def small_expert(config):
        config.vocab_size = 32
        return expert(config=config)

    module.PaliGemmaForConditionalGeneration, module.GemmaForCausalLM = small, small_expert
    tokens = processor.TokenizerProcessorStep
    processor.TokenizerProcessorStep = lambda **k: tokens(**{**k, "tokenizer_name": str(folder)})
    if "as-installed" not in sys.argv:
        # LeRobot fills up with -1 before it maps [0, 1] to [-1, 1], hence with -3; openpi's black is -1.
        resize = module.resize_with_pad_torch
        module.resize_with_pad_torch = lambda image, *size: (resize(2 * image - 1, *size) + 1) / 2
    config = PI0Config(
        **features(),
        chunk_size=CHUNK,
        n_action_steps=CHUNK,
        image_resolution=(28, 28),
        tokenizer_max_length=8,
        device="cpu",
    )
    return module.PI0Policy(config), config, processor.make_pi0_pre_post_processors


def main() -> None:
    folder, kind = Path(sys.argv[1]), sys.argv[2]
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    write_tokenizer(folder / "vlm")
    policy, config, make_processors = {"smolvla": smolvla, "pi0": pi0}[kind](folder / "vlm")
    policy.eval()
    shaken(policy, generator)
    before, after = make_processors(config, statistics(generator))
    policy.save_pretrained(folder / "model")
    before.save_pretrained(folder / "model")
    images = {
        name: torch.randint(0, 256, (ROWS, *shape), generator=generator, dtype=torch.uint8)
        for name, shape in CAMERAS.items()
    }
    state = torch.randn(ROWS, STATE, generator=generator)
    noise = torch.randn(ROWS, CHUNK, config.max_action_dim, generator=generator)
    batch = {name: image.float() / 255 for name, image in images.items()} | {"observation.state": state}
    with torch.no_grad():
        batch = before({**batch, "task": TASKS})
        actions = after(policy.predict_action_chunk(batch, noise=noise))
    tensors = {name: image.permute(0, 2, 3, 1).contiguous() for name, image in images.items()}
    tensors |= {"state": state, "noise": noise, "actions": actions.contiguous()}
    save_file(tensors, folder / "case.safetensors")
    (folder / "case.json").write_text(json.dumps({"tasks": TASKS}))


if __name__ == "__main__":
    main()
