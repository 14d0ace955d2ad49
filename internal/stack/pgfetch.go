package stack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

// repositoryVariable names a mirror of Maven Central for places that cannot
// reach it.
const repositoryVariable = "DELTA_POSTGRES_REPOSITORY"

// downloadable are the versions that embedded-postgres publishes.
var downloadable = map[int]embeddedpostgres.PostgresVersion{
	14: embeddedpostgres.V14, 15: embeddedpostgres.V15, 16: embeddedpostgres.V16,
	17: embeddedpostgres.V17, 18: embeddedpostgres.V18,
}

// defaultDownload is the version to download when no data asks for another.
const defaultDownload = 17

// findPostgres finds an installation that can open data of the given version
// (0: any), or downloads one.
func (s *Stack) findPostgres(ctx context.Context, data int) (binaries, error) {
	found, unusable := finder{path: os.Getenv("PATH")}.find()
	if b, ok := pick(found, data); ok {
		return b, nil
	}
	for _, err := range unusable {
		s.report("not usable: %v", err)
	}
	major := data
	if data == 0 {
		major = defaultDownload
	}
	version, ok := downloadable[major]
	if !ok {
		return binaries{}, mismatch(s.home.dataDir(), data, found, nil)
	}
	// Not in the stack's own directory: that of an ephemeral one is removed.
	dir, err := DefaultDir()
	if err != nil {
		return binaries{}, err
	}
	dir = filepath.Join(dir, "binaries")
	s.report("no local Postgres fits: downloading version %s to %s", version, dir)
	defer s.waiting("the download of Postgres " + string(version))()
	b, err := fetchPostgres(ctx, dir, version)
	if err != nil {
		if data != 0 {
			return binaries{}, mismatch(s.home.dataDir(), data, found, err)
		}
		return binaries{}, fmt.Errorf("no Postgres %d or later is installed and none could be downloaded: %w\n"+
			"Install one (apt install postgresql, brew install postgresql@17), or set %s to a running one", minimalMajor, err, databaseVariable)
	}
	return b, nil
}

// mismatch says what to do about data that no installation can open.
func mismatch(dataDir string, data int, found []binaries, download error) error {
	var have []string
	for _, b := range found {
		have = append(have, fmt.Sprintf("%s in %s", b.version, b.dir))
	}
	if len(have) == 0 {
		have = []string{"none"}
	}
	err := fmt.Errorf("the data in %s was made by Postgres %d, and no installation of that version was found (found: %s): "+
		"install Postgres %d, or convert the data with pg_upgrade, or move the directory away to start empty",
		dataDir, data, strings.Join(have, ", "), data)
	if download != nil {
		err = fmt.Errorf("%w (downloading it failed: %w)", err, download)
	}
	return err
}

// fetchPostgres downloads and unpacks a version, once.
func fetchPostgres(ctx context.Context, dir string, version embeddedpostgres.PostgresVersion) (binaries, error) {
	target := filepath.Join(dir, "postgres-"+string(version))
	bin := filepath.Join(target, "bin")
	if b, err := inspect(bin); err == nil {
		return b, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return binaries{}, err
	}
	// embedded-postgres can fetch only as the first part of a start, and it
	// can start neither as root nor in the foreground. So we let it start on a
	// data directory that holds a version and nothing else: it fetches and
	// unpacks, and pg_ctl then declines at once. Whether the binaries are
	// there is what counts.
	scratch, err := os.MkdirTemp(dir, "fetch-")
	if err != nil {
		return binaries{}, err
	}
	remove := func() { _ = os.RemoveAll(scratch) }
	data := filepath.Join(scratch, "data")
	major, _, _ := strings.Cut(string(version), ".")
	if err := errors.Join(os.Mkdir(data, 0o700), os.WriteFile(filepath.Join(data, "PG_VERSION"), []byte(major+"\n"), 0o600)); err != nil {
		remove()
		return binaries{}, err
	}
	port, err := newPortChooser("").choose("download", 0)
	if err != nil {
		remove()
		return binaries{}, err
	}
	config := embeddedpostgres.DefaultConfig().
		Version(version).Port(uint32(port)).Logger(io.Discard).
		CachePath(dir).RuntimePath(filepath.Join(scratch, "run")).DataPath(data).BinariesPath(target)
	if mirror := os.Getenv(repositoryVariable); mirror != "" {
		config = config.BinaryRepositoryURL(strings.TrimRight(mirror, "/"))
	}
	started := make(chan error, 1)
	go func() {
		server := embeddedpostgres.NewDatabase(config)
		err := server.Start()
		if err == nil { // cannot happen on such data, but must not leave a server
			err = server.Stop()
		}
		remove()
		started <- err
	}()
	select {
	case err = <-started:
	case <-ctx.Done(): // the library cannot be interrupted
		return binaries{}, context.Cause(ctx)
	}
	b, missing := inspect(bin)
	if missing != nil {
		return binaries{}, fmt.Errorf("%w (%w)", err, missing)
	}
	return b, nil
}
