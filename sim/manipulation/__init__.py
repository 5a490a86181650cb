"""Table-top manipulation with a Panda arm: robomimic's Lift, Can and Square in robosuite's scenes."""
