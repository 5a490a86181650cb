"""Vision-language-action policies: images, an instruction and a state to chunks of actions."""
