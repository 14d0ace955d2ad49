package server

// Families are the names, types and help of what /metrics exposes.
func Families() (all [][3]string) {
	for _, f := range families {
		all = append(all, [3]string{f.Name, f.Type, f.Help})
	}
	return all
}
