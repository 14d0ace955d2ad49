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
	// maxTextBytes is how many bytes of JSON are shown as text, and maxIndentDepth the depth up to which JSON is indented: the indents of deeper JSON
	// could be many times its size.
	maxTextBytes   = 256 << 10
	maxIndentDepth = 64
	// maxComparedBytes is the size up to which an object is shown as a tree, or compared with another.
	maxComparedBytes = 1 << 20
	// maxTreeValues is how many values the tree of an object shows, maxTreeDepth its depth, and maxValueBytes how many bytes of a value are shown.
	maxTreeValues = 1000
	maxTreeDepth  = 12
	maxValueBytes = 500
	// maxFields is how many fields a difference names.
	maxFields = 50
)

// objectView is an object as a page shows it: as a tree with its changes, as text if it is not JSON or too large, or neither if it is hidden.
type objectView struct {
	Tree *treeNode
	Text string
	// IsEncoded is set if the object is not shown, because the console's client does not decode it; Size is that of the stored form, in words.
	IsEncoded bool
	Size      string
	// IsCut is set if a part of it is not shown.
	IsCut bool
	// HasPrevious is set if the tree has the changes since another version: the synced one (IsSynced), or the previous one, which was current until Until.
	HasPrevious, IsSynced bool
	Until                 *time.Time
	// IsHidden is set if Redact hides one of two known versions, and IsTooLarge if they are too large to compare.
	IsHidden, IsTooLarge bool
	// Differences lists the differences of the versions.
	Differences differenceView
}

// objectViewOf returns an object with its changes since the previous version. row is the stored row after Redact.
func (h *handler) objectViewOf(stored, row *deltatype.ResourceRow, previous *delta.PreviousObject) (view objectView) {
	if deltatype.IsEncoded(row.EncodedObject) {
		view.IsEncoded, view.Size = true, wording.Count(len(row.EncodedObject), "byte")
		return view
	}
	var before []byte
	if previous.Object != nil {
		before = h.redactObject(stored, previous.Object)
		view.HasPrevious, view.IsHidden, view.IsSynced, view.Until = true, len(before) == 0 || len(row.EncodedObject) == 0, previous.IsSynced, previous.Until
	}
	view.IsTooLarge = len(row.EncodedObject) > maxComparedBytes || len(before) > maxComparedBytes
	if len(row.EncodedObject) > maxComparedBytes {
		view.Text, view.IsCut = indentJSON(row.EncodedObject), true
		return view
	}
	if view.IsHidden || view.IsTooLarge || before == nil {
		before = row.EncodedObject // compared with itself, so that nothing differs
	}
	if len(row.EncodedObject) == 0 {
		return view
	}
	node := difference.Tree(before, row.EncodedObject)
	if node == nil || node.After == nil {
		view.Text = indentJSON(row.EncodedObject)
		return view
	}
	values := maxTreeValues
	tree := buildTree(node, 0, &values)
	view.Tree, view.IsCut = &tree, tree.isCut()
	view.Differences = differenceViewOf(before, row.EncodedObject)
	return view
}

// treeNode is a value of an object, with its change.
type treeNode struct {
	Name   string
	Change difference.Change
	// Text is the value, or the number of parts of an object or array; Before is the old value if it has changed.
	Text, Before string
	Children     []treeNode
	// Left says how many parts are not shown; empty if all are. IsShort is set if a part of Text or Before is not shown.
	Left    string
	IsShort bool
	// IsOpen is set if the parts are visible from the start.
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

// buildTree returns a node as a page shows it. values is how many values may still be added.
func buildTree(node *difference.Node, depth int, values *int) treeNode {
	n := treeNode{Name: node.Name, Change: node.Change}
	value := node.After
	if value == nil {
		value = node.Before
	}
	*values--
	if depth == maxTreeDepth && node.Change == difference.Within {
		n.Change = difference.Changed
	}
	if n.Change == difference.Changed || value.Opens == 0 || len(node.Children) == 0 || depth == maxTreeDepth {
		n.Text, n.IsShort = truncateText(value.JSON())
		if n.Change == difference.Changed {
			var isShort bool
			n.Before, isShort = truncateText(node.Before.JSON())
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
		n.Children = append(n.Children, buildTree(child, depth+1, values))
	}
	return n
}

// differenceView lists the differences of two versions.
type differenceView struct {
	// Summary says how many fields differ.
	Summary string
	Fields  []fieldView
	// Left is how many fields are not named.
	Left int
}

// fieldView is a field that differs. A version without the field is empty.
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
		if i == maxFields {
			view.Left = len(fields) - maxFields
			break
		}
		name, _ := truncateText([]byte(field.Name))
		was, _ := truncateText(field.Before)
		is, _ := truncateText(field.After)
		view.Fields = append(view.Fields, fieldView{name, was, is})
	}
	return view
}

// truncateText returns at most maxValueBytes of a text, without half a character at the end, and reports whether it was cut.
func truncateText(text []byte) (string, bool) {
	most := maxValueBytes
	if len(text) <= most {
		return string(text), false
	}
	for most > 0 && text[most]&0xC0 == 0x80 { // inside a character of UTF-8
		most--
	}
	return string(text[:most]) + " …", true
}

// indentJSON indents JSON. The order of members and the digits of numbers stay as they are stored.
func indentJSON(text []byte) string {
	if len(text) > maxTextBytes {
		return string(text[:maxTextBytes]) + fmt.Sprintf("… (%d bytes in all)", len(text))
	}
	var laid bytes.Buffer
	if nestingDepth(text) > maxIndentDepth || json.Indent(&laid, text, "", "  ") != nil {
		return string(text)
	}
	return laid.String()
}

// nestingDepth returns a depth that is at least that of the JSON: brackets within strings count too.
func nestingDepth(text []byte) (deepest int) {
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
