package bridge

// DefaultNames are those of the slots and publications that tests leave behind.
func DefaultNames(installation, schema string) []string {
	var names []string
	for _, kind := range []string{"account", "seat"} {
		names = append(names, defaultName(kind, installation, "table "+schema+"."+kind))
	}
	return names
}
