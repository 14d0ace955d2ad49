package proxy

import (
	"strings"

	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
)

// parseVersions reads an answer to "@v/list": a version a line, in no order. What cannot be a version of the module is
// left out.
func parseVersions(body []byte, path string) []string {
	_, major, ok := module.SplitPathVersion(path)
	if !ok {
		return nil
	}
	var versions []string
	for line := range strings.Lines(string(body)) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		v := fields[0]
		if module.CanonicalVersion(v) == v && module.CheckPathMajor(v, major) == nil {
			versions = append(versions, v)
		}
	}
	return versions
}

// The ranks of versions, the best last. They are those of the go command, but for a listed +incompatible version: it
// takes that where the newest other one has no go.mod, which would have to be read.
const (
	rankPseudo = iota // some commit; only listed by proxies that list whatever they hold
	rankPrerelease
	rankIncompatible // a release of a major version that the module's path does not tell of
	rankRelease
)

func rank(version string) int {
	switch {
	case module.IsPseudoVersion(version):
		return rankPseudo
	case semver.Prerelease(version) != "":
		return rankPrerelease
	case semver.Build(version) == "+incompatible":
		return rankIncompatible
	default:
		return rankRelease
	}
}

// best chooses the version that the go command would: the highest of the best rank; empty if there is none.
func best(versions []string) string {
	var found string
	for _, v := range versions {
		if found == "" || rank(v) > rank(found) || (rank(v) == rank(found) && semver.Compare(v, found) > 0) {
			found = v
		}
	}
	return found
}

// better tells whether a listed version is preferred to what "@latest" named. A listed commit never is: it may be of any
// branch.
func better(listed, latest string) bool {
	if listed == "" || rank(listed) == rankPseudo {
		return false
	}
	return rank(listed) > rank(latest) || (rank(listed) == rank(latest) && semver.Compare(listed, latest) > 0)
}

// newer counts the versions above current, up to latest, that are of latest's rank or a better one. Commits are not
// counted: which of them a proxy lists is chance.
func newer(versions []string, current, latest string) int {
	if semver.Compare(latest, current) <= 0 || rank(latest) == rankPseudo {
		return 0
	}
	count, listed := 0, false
	for _, v := range versions {
		if rank(v) >= rank(latest) && semver.Compare(v, current) > 0 && semver.Compare(v, latest) <= 0 {
			count++
			listed = listed || v == latest
		}
	}
	if !listed {
		count++
	}
	return count
}
