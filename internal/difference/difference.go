// Package difference compares two versions of a JSON text, so that the command and the console name the same changes.
package difference

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
)

// Change is what has become of a value.
type Change string

// What has become of a value. The empty one is for one that is the same.
const (
	Same    Change = ""
	Added   Change = "added"
	Removed Change = "removed"
	Changed Change = "changed"
	// Within is for an object or an array of which a part has changed.
	Within Change = "within"
)

// Node is a value in one of two versions or both, with what has become of it.
type Node struct {
	// Name is that of the member; empty for the whole text.
	Name   string
	Change Change
	// Before and After are the versions; nil for none.
	Before, After *Value
	// Children are the parts of an object or an array, of the later version in their order and then those that it no longer has. One that was changed as a whole, into a
	// value of another sort, has none.
	Children []*Node
}

// Tree compares two versions of a JSON text: members of objects by their names, elements of arrays by their places, numbers as they are written. A text that is empty, or no
// JSON, has no value. It is nil where neither has one.
func Tree(before, after json.RawMessage) *Node {
	was, is := parse(before), parse(after)
	if was == nil && is == nil {
		return nil
	}
	return compare("", was, is)
}

func compare(name string, before, after *Value) *Node {
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
	for _, m := range orNone(after).Members {
		node.Children = append(node.Children, compare(m.Name, was[m.Name], m.Value))
		delete(was, m.Name)
	}
	for _, m := range orNone(before).Members {
		if value, isGone := was[m.Name]; isGone {
			node.Children = append(node.Children, compare(m.Name, value, nil))
		}
	}
	if node.Change == Same && slices.ContainsFunc(node.Children, func(c *Node) bool { return c.Change != Same }) {
		node.Change = Within
	}
	return node
}

func orNone(v *Value) *Value {
	if v == nil {
		return &Value{}
	}
	return v
}

func membersOf(v *Value) map[string]*Value {
	members := map[string]*Value{}
	for _, m := range orNone(v).Members {
		members[m.Name] = m.Value
	}
	return members
}

// Field is a field that differs. A side that has no such field is nil.
type Field struct {
	// Name is the way to the field, such as a.b[2]; empty for the whole text.
	Name          string
	Before, After json.RawMessage
}

// Fields are the fields in which two JSON texts differ, in the order of their names. What one side does not have at all is named field by field, but an array is one.
func Fields(before, after json.RawMessage) []Field {
	var all []Field
	if node := Tree(before, after); node != nil {
		node.addFields("", &all)
	}
	return all
}

func (n *Node) addFields(way string, to *[]Field) {
	isOneSided := n.Change == Added || n.Change == Removed
	opens := orNone(n.After).Opens
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
