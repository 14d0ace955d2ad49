package console

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/difference"
	"github.com/chariot-giving/delta/internal/wording"
)

const (
	// mostShown is how many bytes of JSON are shown as text, and mostIndented how deep one may be that is laid out: the indents of one that is deeper
	// could be many times its size.
	mostShown    = 256 << 10
	mostIndented = 64
	// mostCompared is how many bytes an object may have that is shown as a tree, or compared with another.
	mostCompared = 1 << 20
	// mostValues is how many values of an object its tree has, mostDeep how deep it is, and mostOfValue how many characters of a value are shown.
	mostValues  = 1000
	mostDeep    = 12
	mostOfValue = 500
	// mostFields is how many fields a difference names.
	mostFields = 50
)

// objectView is an object as a page shows it: as a tree with its change, or as text where it is no JSON or too large for that; neither where it is hidden.
type objectView struct {
	Tree *treeNode
	Text string
	// IsCut is set where a part of it is not shown.
	IsCut bool
	// HasPrevious is set where the tree has the change against another version: that which is synced (IsSynced), or the one before, which was current until Until.
	HasPrevious, IsSynced bool
	Until                 *time.Time
	// IsHidden is set where the version before is known and Redact hides it, and IsTooLarge where it is not compared.
	IsHidden, IsTooLarge bool
	// Differences are those of the versions.
	Differences differenceView
}

// objectViewOf shows an object with the change against the version before. row is the stored one after Redact.
func (h *handler) objectViewOf(stored, row *deltatype.ResourceRow, previous *delta.PreviousObject) (view objectView) {
	var before []byte
	if previous.Object != nil {
		before = h.redactedObject(stored, previous.Object)
		view.HasPrevious, view.IsHidden, view.IsSynced, view.Until = true, len(before) == 0 || len(row.EncodedObject) == 0, previous.IsSynced, previous.Until
	}
	view.IsTooLarge = len(row.EncodedObject) > mostCompared || len(before) > mostCompared
	if len(row.EncodedObject) > mostCompared {
		view.Text, view.IsCut = laidOut(row.EncodedObject), true
		return view
	}
	if view.IsHidden || view.IsTooLarge || before == nil {
		before = row.EncodedObject // compared with itself, nothing has changed
	}
	if len(row.EncodedObject) == 0 {
		return view
	}
	node := difference.Tree(before, row.EncodedObject)
	if node == nil || node.After == nil {
		view.Text = laidOut(row.EncodedObject)
		return view
	}
	values := mostValues
	tree := treeOf(node, 0, &values)
	view.Tree, view.IsCut = &tree, tree.isCut()
	view.Differences = differenceViewOf(before, row.EncodedObject)
	return view
}

// treeNode is a value of an object, with what has become of it.
type treeNode struct {
	Name   string
	Change difference.Change
	// Text is the value, or for an object or array how many parts it has; Before is what it was, where it has changed.
	Text, Before string
	Children     []treeNode
	// Left says how many of the parts are not shown; empty where all are. IsShort is set where a part of Text or Before is not shown.
	Left    string
	IsShort bool
	// IsOpen is set where the parts are to be seen at once.
	IsOpen bool
}

func (n treeNode) isCut() bool {
	for _, child := range n.Children {
		if child.isCut() {
			return true
		}
	}
	return n.Left != "" || n.IsShort
}

// treeOf is a node as it is shown: so many values of it at most.
func treeOf(node *difference.Node, depth int, values *int) treeNode {
	n := treeNode{Name: node.Name, Change: node.Change}
	value := node.After
	if value == nil {
		value = node.Before
	}
	*values--
	if depth == mostDeep && node.Change == difference.Within {
		n.Change = difference.Changed
	}
	if n.Change == difference.Changed || value.Opens == 0 || len(node.Children) == 0 || depth == mostDeep {
		n.Text, n.IsShort = ended(value.JSON())
		if n.Change == difference.Changed {
			var isShort bool
			n.Before, isShort = ended(node.Before.JSON())
			n.IsShort = n.IsShort || isShort
		}
		return n
	}
	what := "member"
	if value.Opens == '[' {
		what = "element"
	}
	n.Text = wording.Count(len(value.Members), what)
	n.IsOpen = depth < 2 || node.Change == difference.Within
	for i, child := range node.Children {
		if *values <= 0 {
			n.Left = wording.Count(len(node.Children)-i, "more "+what)
			break
		}
		n.Children = append(n.Children, treeOf(child, depth+1, values))
	}
	return n
}

// differenceView is how two versions differ, as a list.
type differenceView struct {
	// Summary says how many fields differ.
	Summary string
	Fields  []fieldView
	// Left is how many fields are not named.
	Left int
}

// fieldView is a field that differs. A side that has no such field is empty.
type fieldView struct{ Name, Before, After string }

func differenceViewOf(before, after []byte) differenceView {
	fields := difference.Fields(before, after)
	view := differenceView{Summary: wording.Count(len(fields), "field") + " differ"}
	switch len(fields) {
	case 0:
		view.Summary = "no field differs"
	case 1:
		view.Summary = "1 field differs"
	}
	for i, field := range fields {
		if i == mostFields {
			view.Left = len(fields) - mostFields
			break
		}
		name, _ := ended([]byte(field.Name))
		was, _ := ended(field.Before)
		is, _ := ended(field.After)
		view.Fields = append(view.Fields, fieldView{name, was, is})
	}
	return view
}

// ended is a text up to mostOfValue bytes, and reports whether it goes on. A character that it would end in is left out.
func ended(text []byte) (string, bool) {
	most := mostOfValue
	if len(text) <= most {
		return string(text), false
	}
	for most > 0 && text[most]&0xC0 == 0x80 { // within a character of UTF-8
		most--
	}
	return string(text[:most]) + " …", true
}

// laidOut is JSON with a line for each member. The order of members and the digits of numbers stay as they are stored.
func laidOut(text []byte) string {
	if len(text) > mostShown {
		return string(text[:mostShown]) + fmt.Sprintf("… (%d bytes in all)", len(text))
	}
	var laid bytes.Buffer
	if depth(text) > mostIndented || json.Indent(&laid, text, "", "  ") != nil {
		return string(text)
	}
	return laid.String()
}

// depth is at least as deep as JSON is nested: brackets in texts count too.
func depth(text []byte) (deepest int) {
	deep := 0
	for _, b := range text {
		switch b {
		case '{', '[':
			deep++
			deepest = max(deepest, deep)
		case '}', ']':
			deep--
		}
	}
	return deepest
}
