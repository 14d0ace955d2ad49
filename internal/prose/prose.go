// Package prose finds turns of phrase that make English hard to read, in comments, strings and documents. `make lint` runs it:
//
//	go run ./internal/prose/check
//
// The rules are in CONTRIBUTING.md. A quotation that needs such a phrase is listed in allowed.txt.
package prose

import (
	"fmt"
	"go/scanner"
	"go/token"
	"path/filepath"
	"regexp"
	"strings"
)

// A Rule is a phrase to avoid, and what to write in its place.
type Rule struct {
	Name    string
	Instead string
	pattern *regexp.Regexp
	// allowed, where it is set, matches uses that are fine, from the start of the sentence up to and with the phrase.
	allowed *regexp.Regexp
	// asks, where it is set, matches questions, from the phrase on.
	asks *regexp.Regexp
}

// people may do something: of them "who" is right.
const people = `(?:users?|people|persons?|operators?|engineers?|developers?|readers?|maintainers?|administrators?|owners?|callers?|colleagues?|team|` +
	`somebody|someone|anybody|anyone|everybody|everyone|nobody|those|ones?|you|they|we|newcomers?|reviewers?|attackers?|customers?|humans?|men|women)`

// Rules are all that the check looks for.
var Rules = []Rule{
	{Name: "tells that", Instead: `"reports whether", "says"`, pattern: regexp.MustCompile(`(?i)\btells? (?:that|whether)\b`)},
	{Name: "is what", Instead: "the name of the thing", pattern: regexp.MustCompile(`(?i)\b(?:is|are|was|were) what\b`)},
	{
		Name: "who", Instead: `"that", "which", or the name of the thing; "who" is for people`,
		pattern: regexp.MustCompile(`(?i)\bwho(?:ever|m)?\b`),
		allowed: regexp.MustCompile(`(?i)\b` + people + `(?: [a-z]+)?,? who$`),
		asks:    regexp.MustCompile(`(?i)^who (?:owns|should|may|gave|gives|decides|did)\b`),
	},
	{Name: "he", Instead: `"it", or the name of the thing`, pattern: regexp.MustCompile(`\b(?:he|him|his|He|His)\b`)},
	{Name: "anew", Instead: `"again", "a new …"`, pattern: regexp.MustCompile(`(?i)\banew\b`)},
	{Name: "of one's own", Instead: `"its own", "your own"`, pattern: regexp.MustCompile(`(?i)\bof (?:[a-z]+ )?[a-z]+'s own(?:[,.;:)]|$| (?:wait|that|which|is|are|has|have|for|in|on|and|or|as|with)\b)`)},
	{Name: "for nobody", Instead: "what does not happen", pattern: regexp.MustCompile(`(?i)\bfor nobody\b`)},
	{Name: "says what", Instead: "the name of the thing that is said", pattern: regexp.MustCompile(`(?i)\bsays? (?:what|who)\b`), asks: regexp.MustCompile(`(?i)^says? what to do\b`)},
	{
		Name: "has it done", Instead: "a verb that says it: starts, makes, lets",
		pattern: regexp.MustCompile(`(?i)\b(?:has|have|had|having) (?:it|them|each|all|(?:the|a|an|its|their) [a-z]+) (?:[a-z]+ed|done|made|sent|run|read|written|taken|given|begun|shown|told|known|kept)(?:[.,;:)]| (?:by|again|at|in|on|with|when|where|and|before|after|to|once)\b)`),
	},
}

// A Finding is a phrase at its place.
type Finding struct {
	File string
	Line int
	Rule string
	Text string // a few words around the phrase
}

func (f Finding) String() string { return fmt.Sprintf("%s:%d: %s: %s", f.File, f.Line, f.Rule, f.Text) }

// Find returns the findings in a file: in comments and strings of Go, in all text of other files but their code.
func Find(file string, source []byte) []Finding {
	var found []Finding
	for _, p := range splitPassages(file, source) {
		for _, rule := range Rules {
			for _, at := range rule.pattern.FindAllStringIndex(p.text, -1) {
				if rule.allowed != nil && rule.allowed.MatchString(p.text[:at[1]]) || rule.asks != nil && rule.asks.MatchString(p.text[at[0]:]) {
					continue
				}
				from, to := max(0, at[0]-60), min(len(p.text), at[1]+60)
				found = append(found, Finding{File: file, Line: p.lineAt(at[0]), Rule: rule.Name, Text: strings.ToValidUTF8(p.text[from:to], "")})
			}
		}
	}
	return found
}

// A passage is text that is read in one go, with its lines joined by spaces, so that a phrase is found across the end of a line.
type passage struct {
	text   string
	starts []int // where each line begins in text
	first  int   // the number of the first line
}

func (p passage) lineAt(offset int) int {
	n := 0
	for n+1 < len(p.starts) && p.starts[n+1] <= offset {
		n++
	}
	return p.first + n
}

func (p *passage) addLine(line string) {
	if p.text != "" {
		p.text += " "
	}
	p.starts = append(p.starts, len(p.text))
	p.text += line
}

func splitPassages(file string, source []byte) []passage {
	switch filepath.Ext(file) {
	case ".go":
		return passagesOfGo(source)
	case ".sql":
		return passagesOfLines(source, "--")
	case ".md":
		return passagesOfMarkdown(source)
	case ".yaml", ".yml", ".sh", "":
		return passagesOfLines(source, "#")
	}
	return passagesOfLines(source, "")
}

// passagesOfGo are the groups of comments, and each string.
func passagesOfGo(source []byte) []passage {
	set := token.NewFileSet()
	file := set.AddFile("", -1, len(source))
	var s scanner.Scanner
	s.Init(file, source, nil, scanner.ScanComments)
	var found []passage
	comments, last := passage{}, 0
	flush := func() {
		if comments.text != "" {
			found = append(found, comments)
		}
		comments = passage{}
	}
	for {
		pos, kind, text := s.Scan()
		if kind == token.EOF {
			break
		}
		line := file.Line(pos)
		switch kind {
		case token.COMMENT:
			if line != last+1 || comments.text == "" {
				flush()
				comments.first = line
			}
			for i, each := range strings.Split(text, "\n") {
				comments.addLine(strings.TrimLeft(each, "/* \t"))
				last = line + i
			}
		case token.STRING:
			p := passage{first: line}
			for _, each := range strings.Split(text, "\n") {
				p.addLine(each)
			}
			found = append(found, p)
		default: // other code
		}
	}
	flush()
	return found
}

// passagesOfLines are runs of lines that begin with the mark, or of all that are not empty.
func passagesOfLines(source []byte, mark string) []passage {
	var found []passage
	p := passage{}
	for i, line := range strings.Split(string(source), "\n") {
		at := strings.Index(line, mark)
		if at < 0 || strings.TrimSpace(line) == "" {
			if p.text != "" {
				found = append(found, p)
			}
			p = passage{}
			continue
		}
		if p.text == "" {
			p.first = i + 1
		}
		p.addLine(strings.TrimSpace(line[at+len(mark):]))
	}
	if p.text != "" {
		found = append(found, p)
	}
	return found
}

// spans are code and the targets of links.
var spans = regexp.MustCompile("`[^`]*`|\\]\\([^)]*\\)")

// passagesOfMarkdown are paragraphs without their code and the targets of their links.
func passagesOfMarkdown(source []byte) []passage {
	lines, fenced := strings.Split(string(source), "\n"), false
	for i, line := range lines {
		fence := strings.HasPrefix(strings.TrimSpace(line), "```")
		if fence || fenced {
			lines[i] = ""
		} else {
			lines[i] = spans.ReplaceAllStringFunc(line, func(s string) string { return s[:1] + strings.Repeat("x", len(s)-2) + s[len(s)-1:] })
		}
		if fence {
			fenced = !fenced
		}
	}
	return passagesOfLines([]byte(strings.Join(lines, "\n")), "")
}
