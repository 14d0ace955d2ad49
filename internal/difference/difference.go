// Package difference compares two versions of a JSON text, for the command and the console.
package difference

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
)

// Change says how a value has changed.
type Change string

// The changes of a value; empty for an unchanged one.
const (
	Same    Change = ""
	Added   Change = "added"
	Removed Change = "removed"
	Changed Change = "changed"
	// Within is for an object or an array with a changed part.
	Within Change = "within"
)

// Node is a value of one or both versions, with its change.
type Node struct {
	// Name is the name of the member; empty for the whole text.
	Name   string
	Change Change
	// Before and After are the value in the two versions; nil if the version does not have it.
	Before, After *Value
	// Children are the parts of an object or an array: those of the later version in their order, then those that it no longer has. A value that has
	// changed into one of another type has none.
	Children []*Node
}

// Tree compares two versions of a JSON text: members of objects by name, elements of arrays by index, numbers as they are written. A text that is
// empty or not JSON has no value. Tree returns nil if neither version has a value.
func Tree(before, after json.RawMessage) *Node {
	was, is := parseValue(before), parseValue(after)
	if was == nil && is == nil {
		return nil
	}
	return compareValues("", was, is)
}

func compareValues(name string, before, after *Value) *Node {
	node := &Node{Name: name, Before: before, After: after}
	switch {
	case before == nil:
		node.Change = Added
	case after == nil:
		node.Change = Removed
	case before.Opens != after.Opens, !bytes.Equal(before.text, after.text):
		node.Change = Changed
		return node
	}
	was := membersOf(before)
	for _, m := range orEmpty(after).Members {
		node.Children = append(node.Children, compareValues(m.Name, was[m.Name], m.Value))
		delete(was, m.Name)
	}
	for _, m := range orEmpty(before).Members {
		if value, isGone := was[m.Name]; isGone {
			node.Children = append(node.Children, compareValues(m.Name, value, nil))
		}
	}
	if node.Change == Same && slices.ContainsFunc(node.Children, func(c *Node) bool { return c.Change != Same }) {
		node.Change = Within
	}
	return node
}

func orEmpty(v *Value) *Value {
	if v == nil {
		return &Value{}
	}
	return v
}

func membersOf(v *Value) map[string]*Value {
	members := map[string]*Value{}
	for _, m := range orEmpty(v).Members {
		members[m.Name] = m.Value
	}
	return members
}

// Field is a field that differs. Before or After is nil if that version has no such field.
type Field struct {
	// Name is the path to the field, such as a.b[2]; empty for the whole text.
	Name          string
	Before, After json.RawMessage
}

// Fields returns the fields in which two JSON texts differ, in the order of their names. An object that one version does not have is listed field by
// field, an array as one field.
func Fields(before, after json.RawMessage) []Field {
	var all []Field
	if node := Tree(before, after); node != nil {
		node.addFields("", &all)
	}
	return all
}

func (n *Node) addFields(way string, to *[]Field) {
	isOneSided := n.Change == Added || n.Change == Removed
	opens := orEmpty(n.After).Opens
	if n.After == nil {
		opens = n.Before.Opens
	}
	switch {
	case n.Change == Same:
	case n.Change == Within, isOneSided && opens == '{' && len(n.Children) > 0:
		children := slices.Clone(n.Children)
		if opens == '{' {
			slices.SortFunc(children, func(a, b *Node) int { return strings.Compare(a.Name, b.Name) })
		}
		for _, c := range children {
			name := way + c.Name
			if opens == '{' {
				name = strings.TrimPrefix(way+"."+c.Name, ".")
			}
			c.addFields(name, to)
		}
	default:
		*to = append(*to, Field{way, n.Before.JSON(), n.After.JSON()})
	}
}
