package main

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"golang.org/x/mod/semver"

	"github.com/chariot-giving/delta/internal/frozen"
)

// findBase returns the release before this one, or "" for the first. Versions of Delta on River and candidates promise nothing.
func (r release) findBase() (base string, err error) {
	tags, err := r.git("tag", "--list", "v*")
	if err != nil {
		return "", err
	}
	for tag := range strings.FieldsSeq(tags) {
		if semver.IsValid(tag) && semver.Prerelease(tag) == "" && semver.Compare(tag, original) > 0 && semver.Compare(tag, r.version) < 0 &&
			(base == "" || semver.Compare(tag, base) > 0) {
			base = tag
		}
	}
	return base, nil
}

func (r release) printBase() error {
	base, err := r.findBase()
	_, _ = fmt.Fprintln(r.out, base)
	return err
}

// unpromised are lines of api/schema.txt that a migration may change.
var unpromised = regexp.MustCompile(`(?m)^(index|comment) .*\n`)

// hiddenType is the name of a type in api/json.txt, which may change, because it is not exported.
var hiddenType = regexp.MustCompile(`(?m)^(\S+) [a-z]\w* `)

// checkPromises reports the lines of api that the base has, and this release has not.
func (r release) checkPromises(base string) error {
	files, err := r.git("ls-tree", "-r", "--name-only", base, "api")
	if err != nil {
		return err
	}
	var problems []error
	for file := range strings.FieldsSeq(files) {
		before, err := r.git("show", base+":"+file)
		if err != nil {
			return err
		}
		now, err := r.git("show", r.version+":"+file)
		if err != nil {
			problems = append(problems, fmt.Errorf("%s is gone", file))
			continue
		}
		gone, added := frozen.Compare(clean(file, before), clean(file, now))
		for _, line := range gone {
			problems = append(problems, fmt.Errorf("%s: gone since %s: %s", file, base, line))
		}
		if len(added) > 0 && semver.MajorMinor(base) == semver.MajorMinor(r.version) {
			problems = append(problems, fmt.Errorf("%s: new since %s, so this is no patch but a minor version: %s", file, base, strings.Join(added, "; ")))
		}
	}
	return errors.Join(problems...)
}

func clean(file, text string) string {
	switch file {
	case "api/schema.txt":
		return unpromised.ReplaceAllString(text+"\n", "")
	case "api/json.txt":
		return hiddenType.ReplaceAllString(text, "$1 ")
	}
	return text
}

// checkHistory reports migrations and recorded histories of the base that were changed. Databases have applied those migrations, and workflows are in the
// middle of such histories.
func (r release) checkHistory(base string) error {
	changed, err := r.git("diff", "--name-status", "--no-renames", "--diff-filter=MD", base, r.version, "--", "migrations/*.sql", "workflows/testdata")
	if err != nil || changed == "" {
		return err
	}
	var problems []error
	for line := range strings.SplitSeq(changed, "\n") {
		_, file, _ := strings.Cut(line, "\t")
		problems = append(problems, fmt.Errorf("%s was released with %s, and has changed: add another file", file, base))
	}
	return errors.Join(problems...)
}
