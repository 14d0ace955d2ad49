package server

// Families are the names, types and help of what /metrics exposes.
func Families() (all [][3]string) {
	for _, f := range families {
		all = append(all, [3]string{f.name, f.kind, f.help})
	}
	return all
}
