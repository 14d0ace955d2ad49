package console

import (
	"maps"
	"slices"
)

// Addresses are all that the console answers, and commands those that take a form.
func Addresses() (all, commands []string) {
	routes := (&handler{}).routes()
	for _, address := range slices.Sorted(maps.Keys(routes)) {
		if all = append(all, address); routes[address].isCommand {
			commands = append(commands, address)
		}
	}
	return all, commands
}
