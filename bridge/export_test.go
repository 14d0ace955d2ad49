package bridge

// DefaultNames are those of the slots and publications that tests leave behind.
func DefaultNames(installation, schema string) []string {
	return []string{defaultName("account", installation, "table "+schema+".account")}
}
