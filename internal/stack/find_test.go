//go:build unix

package stack

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/internal/soak"
	"github.com/chariot-giving/delta/internal/testprogram"
)

func TestParseVersion(t *testing.T) {
	t.Parallel()
	for output, want := range map[string]struct {
		version string
		major   int
	}{
		"postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n": {"15.14", 15},
		"postgres (PostgreSQL) 14.0\n":                           {"14.0", 14},
		"postgres (PostgreSQL) 18beta1\n":                        {"18beta1", 18},
		"postgres (PostgreSQL) 19devel\n":                        {"19devel", 19},
		"postgres (PostgreSQL) 9.6.24\n":                         {"9.6.24", 9},
		"postgres (PostgreSQL) 17.2 (Postgres.app)\n":            {"17.2", 17},
	} {
		version, major, err := parseVersion(output)
		require.NoError(t, err, output)
		require.Equal(t, want.version, version, output)
		require.Equal(t, want.major, major, output)
	}
	for _, output := range []string{"", "postgres", "mysqld 8.0", "postgres (PostgreSQL) unknown"} {
		_, _, err := parseVersion(output)
		require.Error(t, err, output)
	}
}

// installFake puts a Postgres of the given version under root.
func installFake(t *testing.T, root, dir, version string) string {
	t.Helper()
	dir = filepath.Join(root, dir)
	require.NoError(t, os.MkdirAll(dir, 0o755))
	script := fmt.Sprintf("#!/bin/sh\necho 'postgres (PostgreSQL) %s'\n", version)
	for _, name := range []string{"postgres", "initdb"} {
		testprogram.Write(t, filepath.Join(dir, name), []byte(script))
	}
	return dir
}

func TestFindPostgres(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		installed map[string]string // directory → version
		path      []string
		config    string // what pg_config on the first directory of path answers
		want      []string
		unusable  int
	}{
		"nothing": {},
		"newest of Debian first, by number": {
			installed: map[string]string{"usr/lib/postgresql/9.6/bin": "9.6.24", "usr/lib/postgresql/14/bin": "14.1", "usr/lib/postgresql/17/bin": "17.2", "usr/lib/postgresql/16/bin": "16.3"},
			want:      []string{"17.2", "16.3", "14.1"}, unusable: 1,
		},
		"PATH before all": {
			installed: map[string]string{"usr/lib/postgresql/17/bin": "17.2", "opt/pg/bin": "15.1"},
			path:      []string{"bin", "opt/pg/bin"},
			want:      []string{"15.1", "17.2"},
		},
		"an old one on PATH does not hide others": {
			installed: map[string]string{"usr/lib/postgresql/15/bin": "15.2", "opt/pg/bin": "13.9"},
			path:      []string{"opt/pg/bin"},
			want:      []string{"15.2"}, unusable: 1,
		},
		"what pg_config names": {
			installed: map[string]string{"elsewhere/bin": "16.1", "usr/lib/postgresql/17/bin": "17.2"},
			path:      []string{"bin"}, config: "elsewhere/bin",
			want: []string{"16.1", "17.2"},
		},
		"Homebrew and Postgres.app": {
			installed: map[string]string{
				"opt/homebrew/opt/postgresql@14/bin": "14.5", "opt/homebrew/opt/postgresql@17/bin": "17.1",
				"usr/local/opt/postgresql@16/bin":                        "16.1",
				"Applications/Postgres.app/Contents/Versions/18/bin":     "18.0",
				"Applications/Postgres.app/Contents/Versions/latest/bin": "18.0",
			},
			want: []string{"17.1", "14.5", "16.1", "18.0"},
		},
		"found twice, used once": {
			installed: map[string]string{"usr/lib/postgresql/15/bin": "15.2"},
			path:      []string{"usr/lib/postgresql/15/bin"},
			want:      []string{"15.2"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			for dir, version := range test.installed {
				installFake(t, root, dir, version)
			}
			f := finder{root: root}
			var dirs []string
			for _, dir := range test.path {
				dirs = append(dirs, filepath.Join(root, dir))
			}
			f.path = strings.Join(dirs, string(filepath.ListSeparator))
			if test.config != "" {
				require.NoError(t, os.MkdirAll(dirs[0], 0o755))
				script := "#!/bin/sh\n[ \"$1\" = --bindir ] && echo " + filepath.Join(root, test.config) + "\n"
				testprogram.Write(t, filepath.Join(dirs[0], "pg_config"), []byte(script))
			}
			found, unusable := f.findAll()
			var versions []string
			for _, b := range found {
				versions = append(versions, b.version)
			}
			require.Equal(t, test.want, versions)
			require.Len(t, unusable, test.unusable, "%v", unusable)
		})
	}
}

func TestFindPostgresFollowsLinksOfPath(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	real := installFake(t, root, "Cellar/postgresql/16.1/bin", "16.1")
	links := filepath.Join(root, "bin") // it has no initdb
	require.NoError(t, os.Mkdir(links, 0o755))
	require.NoError(t, os.Symlink(filepath.Join(real, "postgres"), filepath.Join(links, "postgres")))
	found, _ := finder{root: root, path: links}.findAll()
	require.Len(t, found, 1)
	require.Equal(t, resolveLinks(real), found[0].dir)
}

func TestPick(t *testing.T) {
	t.Parallel()
	found := []binaries{{major: 17}, {major: 15}}
	for data, want := range map[int]int{0: 17, 17: 17, 15: 15} {
		b, ok := pickBinaries(found, data)
		require.True(t, ok)
		require.Equal(t, want, b.major)
	}
	_, ok := pickBinaries(found, 16)
	require.False(t, ok)
	_, ok = pickBinaries(nil, 0)
	require.False(t, ok)
}

func TestDataOfAnotherVersionIsRefused(t *testing.T) {
	t.Setenv(repositoryVariable, "http://127.0.0.1:1") // nothing is downloaded
	for version, want := range map[string]string{
		"12":      "was made by Postgres 12, and no installation of that version was found",
		"99":      "install Postgres 99",
		"14":      "downloading it failed",
		"garbage": `PG_VERSION says "garbage"`,
		"":        "is no Postgres data directory",
	} {
		dir := openDir(t)
		data := (&home{dir: dir}).dataDir()
		require.NoError(t, os.MkdirAll(data, 0o755))
		name := "PG_VERSION"
		if version == "" {
			name = "something else"
		}
		require.NoError(t, os.WriteFile(filepath.Join(data, name), []byte(version+"\n"), 0o644))
		s := &Stack{opts: Options{Progress: func(string) {}}, home: &home{dir: dir}, ports: newPortChooser("")}
		t.Setenv("PATH", installFake(t, dir, "path", "17.2"))
		if version == "14" {
			if _, installed := pickBinaries(first(finder{}.findAll()), 14); installed {
				continue
			}
		}
		err := s.startPostgres(t.Context())
		require.ErrorContains(t, err, want, version)
		require.FileExists(t, filepath.Join(data, name), "a refused start must not touch the data")
	}
}

func first[A, B any](a A, _ B) A { return a }

func TestLogOfAFailedStartIsShown(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	dir := openDir(t)
	s := &Stack{opts: Options{Progress: func(string) {}, PostgresPort: AnyPort}, home: &home{dir: dir}, ports: newPortChooser("")}
	bin, err := s.findPostgres(t.Context(), 0)
	require.NoError(t, err)
	as, err := postgresAccount(s.home.dataDir())
	require.NoError(t, err)
	require.NoError(t, s.prepareData(t.Context(), bin, as, true))
	config, err := os.OpenFile(filepath.Join(s.home.dataDir(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = config.WriteString("\nno_such_setting = 1\n")
	require.NoError(t, err)
	require.NoError(t, config.Close())
	err = s.startPostgres(t.Context())
	require.ErrorContains(t, err, "Postgres did not start")
	require.ErrorContains(t, err, "no_such_setting")
	require.ErrorContains(t, err, filepath.Join(dir, "postgres.log"))
	requireGone(t, dir)
}

func TestFindTemporal(t *testing.T) {
	root, err := filepath.EvalSymlinks(resolveLinks(t.TempDir()))
	require.NoError(t, err)
	program := func(path, version string) string {
		path = filepath.Join(root, path)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		script := "#!/bin/sh\n[ \"$*\" = --version ] && echo '" + version + "'\n"
		testprogram.Write(t, path, []byte(script))
		return path
	}
	deep := filepath.Join(root, "checkout", "a", "b")
	require.NoError(t, os.MkdirAll(deep, 0o755))
	t.Chdir(deep)
	t.Setenv(serverVariable, "")
	t.Setenv("PATH", filepath.Join(root, "path"))
	find := func() (temporalProgram, []string) {
		found, passedOver, err := findTemporal(t.Context())
		require.NoError(t, err)
		return found, passedOver
	}

	found, passedOver := find()
	require.Empty(t, found)
	require.Empty(t, passedOver)

	// Programs that are too old, or no servers, are skipped with the reason.
	old := program("path/temporal", "temporal version 1.5.1 (Server 1.29.1, UI 2.42.1)")
	other := program("path/delta-temporal", "some other program")
	found, passedOver = find()
	require.Empty(t, found)
	require.Len(t, passedOver, 2)
	require.Contains(t, passedOver[0], old+" is passed over: its server is 1.29.1, and Delta starts "+minimalTemporal+" or later")
	require.Contains(t, passedOver[1], other+` --version names no version of a server: "some other program`)

	built := program("checkout/.bin/delta-temporal", "delta-temporal (Server 1.32.0, UI 2.55.0)")
	found, passedOver = find()
	require.Equal(t, temporalProgram{built, "built by make", "1.32.0"}, found)
	require.Len(t, passedOver, 2)
	ours := program("path/delta-temporal", "delta-temporal (Server 1.100.0-rc.1, UI 2.55.0)")
	found, _ = find()
	require.Equal(t, temporalProgram{ours, "on PATH", "1.100.0-rc.1"}, found)
	theirs := program("path/temporal", "temporal version 1.9.1 (Server 1.32.0, UI 2.54.1)")
	found, passedOver = find()
	require.Equal(t, temporalProgram{theirs, "on PATH", "1.32.0"}, found)
	require.Empty(t, passedOver)

	// A named program is used even if it is old.
	named := program("named", "temporal version 1.5.1 (Server 1.29.1, UI 2.42.1)")
	t.Setenv(serverVariable, named)
	found, _ = find()
	require.Equal(t, temporalProgram{named, "named by " + serverVariable, "1.29.1"}, found)
	for path, want := range map[string]string{
		filepath.Join(root, "missing"):        serverVariable + " is set to ",
		program("other", "other"):             "names no version of a server",
		program("exit 1", "' >&2; exit 1; '"): "exit status 1",
	} {
		t.Setenv(serverVariable, path)
		_, _, err = findTemporal(t.Context())
		require.ErrorContains(t, err, serverVariable, path)
		require.ErrorContains(t, err, want, path)
	}
}

func TestTheDatabaseOfAServerIsNamedByItsVersion(t *testing.T) {
	h := &home{dir: "/d"}
	require.Equal(t, "/d/temporal-1.32.db", h.temporalDatabase("1.32.1"))
	require.Equal(t, "/d/temporal-1.100.db", h.temporalDatabase("1.100.0-rc.1"))
}

func TestTheTemporalCommandIsFoundInACheckout(t *testing.T) {
	root, err := filepath.EvalSymlinks(resolveLinks(t.TempDir()))
	require.NoError(t, err)
	t.Setenv("PATH", "")
	t.Chdir(root)
	require.Empty(t, TemporalCommand())
	path := filepath.Join(root, ".bin", "temporal")
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	testprogram.Write(t, path, []byte("#!/bin/sh\n"))
	require.Equal(t, path, TemporalCommand())
}

func TestFetchPostgres(t *testing.T) {
	xz, err := exec.LookPath("xz")
	if err != nil {
		t.Skip("needs xz")
	}
	// A repository like Maven Central, with an archive of scripts.
	root := t.TempDir()
	installFake(t, root, "bin", "16.9")
	testprogram.Write(t, filepath.Join(root, "bin", "pg_ctl"), []byte("#!/bin/sh\necho no >&2\nexit 1\n"))
	var packed bytes.Buffer
	cmd := exec.Command("sh", "-c", "tar -C "+root+" -c bin | "+xz)
	cmd.Stdout = &packed
	require.NoError(t, cmd.Run())
	var jar bytes.Buffer
	archive := zip.NewWriter(&jar)
	w, err := archive.Create("postgres.txz")
	require.NoError(t, err)
	_, err = w.Write(packed.Bytes())
	require.NoError(t, err)
	require.NoError(t, archive.Close())
	var requests atomic.Int32
	repository := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		if strings.HasSuffix(r.URL.Path, ".sha256") {
			sum := sha256.Sum256(jar.Bytes())
			_, _ = w.Write([]byte(hex.EncodeToString(sum[:])))
			return
		}
		_, _ = w.Write(jar.Bytes())
	}))
	defer repository.Close()
	t.Setenv(repositoryVariable, repository.URL)

	dir := filepath.Join(t.TempDir(), "binaries")
	for range 2 {
		b, err := fetchPostgres(t.Context(), dir, downloadable[16])
		require.NoError(t, err)
		require.Equal(t, "16.9", b.version)
		require.Equal(t, int32(2), requests.Load(), "downloaded once")
	}
	left, err := filepath.Glob(filepath.Join(dir, "fetch-*"))
	require.NoError(t, err)
	require.Empty(t, left)

	repository.Close()
	_, err = fetchPostgres(t.Context(), filepath.Join(t.TempDir(), "binaries"), downloadable[16])
	require.ErrorContains(t, err, "unable to connect to "+repository.URL)
}
