package proxy

import (
	"strings"

	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
)

// parseVersions parses a response to "@v/list": one version a line, in no order. It ignores lines that cannot be a version of the module.
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

// The ranks of versions, the best last. They are those of the go command except for a listed +incompatible version, which the go command takes if the newest other
// one has no go.mod, for which it would have to be read.
const (
	rankPseudo = iota // a commit; listed only by proxies that list everything they have
	rankPrerelease
	rankIncompatible // a release of a major version that is not in the module's path
	rankRelease
)

func rankVersion(version string) int {
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

// bestVersion returns the version that the go command would choose: the highest of the best rank; "" if there is none.
func bestVersion(versions []string) string {
	var found string
	for _, v := range versions {
		if found == "" || rankVersion(v) > rankVersion(found) || (rankVersion(v) == rankVersion(found) && semver.Compare(v, found) > 0) {
			found = v
		}
	}
	return found
}

// isBetter reports whether a listed version is preferred to the version of "@latest". A listed commit never is, because it may be of any branch.
func isBetter(listed, latest string) bool {
	if listed == "" || rankVersion(listed) == rankPseudo {
		return false
	}
	return rankVersion(listed) > rankVersion(latest) || (rankVersion(listed) == rankVersion(latest) && semver.Compare(listed, latest) > 0)
}

// countNewer counts the versions above current, up to latest, of latest's rank or a better one. It does not count commits, because a proxy lists only some of
// them.
func countNewer(versions []string, current, latest string) int {
	if semver.Compare(latest, current) <= 0 || rankVersion(latest) == rankPseudo {
		return 0
	}
	count, listed := 0, false
	for _, v := range versions {
		if rankVersion(v) >= rankVersion(latest) && semver.Compare(v, current) > 0 && semver.Compare(v, latest) <= 0 {
			count++
			listed = listed || v == latest
		}
	}
	if !listed {
		count++
	}
	return count
}
