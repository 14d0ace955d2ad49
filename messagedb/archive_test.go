package messagedb_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
)

// readArchive reads an archive of small files.
func readArchive(archive []byte) (map[string]string, error) {
	unzipped, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		return nil, err
	}
	files := map[string]string{}
	for reader := tar.NewReader(unzipped); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil {
			return nil, err
		}
		text, err := io.ReadAll(io.LimitReader(reader, 1<<20))
		if err != nil {
			return nil, err
		}
		files[header.Name] = string(text)
	}
}
