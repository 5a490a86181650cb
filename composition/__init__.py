"""Many policies become one at test time: score composition, superposition, weight search, reranking by value."""
