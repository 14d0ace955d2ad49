package stack

func setDeathSignals(on bool) { deathSignals = on }
