package deltatype

// SnoozeScope says how much a snooze of Work postpones.
type SnoozeScope int

const (
	// SnoozesResource postpones the resource alone.
	SnoozesResource SnoozeScope = iota
	// SnoozesKind postpones all Work of its kind.
	SnoozesKind
	// SnoozesNamespace postpones all Work in its namespace, across kinds.
	SnoozesNamespace
)
