package stack

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// sources are the sources of this package. Test processes share a running stack only if they would have started the same one, and nothing else
// distinguishes test binaries of the same module version.
//
//go:embed *.go
var sources embed.FS

// Fingerprint identifies the stack that Start would start, by this code and the environment.
func Fingerprint() string {
	hash := sha256.New()
	_ = fs.WalkDir(sources, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := fs.ReadFile(sources, path)
		_, _ = fmt.Fprintf(hash, "%s %d\n%s", path, len(b), b)
		return err
	})
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		if name == databaseVariable || name == serverVariable || strings.HasPrefix(name, "TEMPORAL_") {
			_, _ = fmt.Fprintln(hash, entry)
		}
	}
	f := finder{path: os.Getenv("PATH")}
	_, _ = fmt.Fprintln(hash, f.onPath("postgres"), f.onPath("pg_config"), f.onPath("temporal"), f.onPath(ownServer))
	return hex.EncodeToString(hash.Sum(nil))[:12]
}
