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

// repositoryVariable names a mirror of Maven Central, for networks that cannot reach it.
const repositoryVariable = "DELTA_POSTGRES_REPOSITORY"

// downloadable has the versions that embedded-postgres publishes.
var downloadable = map[int]embeddedpostgres.PostgresVersion{
	14: embeddedpostgres.V14, 15: embeddedpostgres.V15, 16: embeddedpostgres.V16,
	17: embeddedpostgres.V17, 18: embeddedpostgres.V18,
}

// defaultDownload is the version to download, unless existing data needs another one.
const defaultDownload = 17

// findPostgres finds an installation that can open data of this version (0: any), or downloads one.
func (s *Stack) findPostgres(ctx context.Context, data int) (binaries, error) {
	found, unusable := finder{path: os.Getenv("PATH")}.findAll()
	if b, ok := pickBinaries(found, data); ok {
		return b, nil
	}
	for _, err := range unusable {
		s.reportProgress("not usable: %v", err)
	}
	major := data
	if data == 0 {
		major = defaultDownload
	}
	version, ok := downloadable[major]
	if !ok {
		return binaries{}, noBinariesFor(s.home.dataDir(), data, found, nil)
	}
	// The stack's own directory will not do, because that of an ephemeral stack is removed.
	dir, err := DefaultDir()
	if err != nil {
		return binaries{}, err
	}
	dir = filepath.Join(dir, "binaries")
	s.reportProgress("no local Postgres fits: downloading version %s to %s", version, dir)
	defer s.reportWaiting("the download of Postgres " + string(version))()
	b, err := fetchPostgres(ctx, dir, version)
	if err != nil {
		if data != 0 {
			return binaries{}, noBinariesFor(s.home.dataDir(), data, found, err)
		}
		return binaries{}, fmt.Errorf("no Postgres %d or later is installed and none could be downloaded: %w\n"+
			"Install one (apt install postgresql, brew install postgresql@17), or set %s to a running one", minimalMajor, err, databaseVariable)
	}
	return b, nil
}

// noBinariesFor returns an error that says what to do about data that no installation can open.
func noBinariesFor(dataDir string, data int, found []binaries, download error) error {
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
	if b, err := inspectBinaries(bin); err == nil {
		return b, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return binaries{}, err
	}
	// embedded-postgres downloads only as the first part of a start, and can start neither as root nor in the foreground. So it is started on a data
	// directory that holds only a version: it downloads and unpacks, and then pg_ctl fails at once. The call has succeeded if the binaries are there.
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
	port, err := newPortChooser("").choosePort("download", 0)
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
		if err == nil { // cannot happen on such data, but must not leave a server running
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
	b, missing := inspectBinaries(bin)
	if missing != nil {
		return binaries{}, fmt.Errorf("%w (%w)", err, missing)
	}
	return b, nil
}
