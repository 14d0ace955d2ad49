package console

import (
	"maps"
	"slices"
)

// Addresses returns all addresses of the console, and those that take the form of a command.
func Addresses() (all, commands []string) {
	routes := (&handler{}).listRoutes()
	for _, address := range slices.Sorted(maps.Keys(routes)) {
		if all = append(all, address); routes[address].isCommand {
			commands = append(commands, address)
		}
	}
	return all, commands
}
