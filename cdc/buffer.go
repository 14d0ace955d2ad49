package cdc

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"os"
)

const (
	// entryHeader is the size of the header of a message: length, position and transaction.
	entryHeader   = 4 + 8 + 4
	smallestChunk = 512
	largestChunk  = 256 << 10
)

// entry is a message as received. data is valid until the next entry is read. Data of largestChunk bytes or more is a
// separate allocation, and is not reused.
type entry struct {
	at   LSN
	xid  uint32
	data []byte
}

// buffer holds the messages of a transaction, in memory until it is spilled, and then all of them in a temporary file.
// One goroutine writes it, and afterwards one reads it.
type buffer struct {
	chunks  [][]byte
	memory  int64 // bytes allocated for chunks
	size    int64 // bytes of all entries
	file    *os.File
	folder  string // of the file
	writer  *bufio.Writer
	reader  *bufio.Reader
	scratch []byte
}

func (b *buffer) appendEntry(e entry) error {
	var header [entryHeader]byte
	binary.BigEndian.PutUint32(header[:], uint32(len(e.data))) //nolint:gosec // the server's messages are below 1 GiB
	binary.BigEndian.PutUint64(header[4:], uint64(e.at))
	binary.BigEndian.PutUint32(header[12:], e.xid)
	need := entryHeader + len(e.data)
	b.size += int64(need)
	if b.file != nil {
		if _, err := b.writer.Write(header[:]); err != nil {
			return b.spillError(err)
		}
		_, err := b.writer.Write(e.data)
		return b.spillError(err)
	}
	last := len(b.chunks) - 1
	if last < 0 || cap(b.chunks[last])-len(b.chunks[last]) < need {
		capacity := smallestChunk
		if last >= 0 {
			capacity = min(2*cap(b.chunks[last]), largestChunk)
		}
		b.chunks = append(b.chunks, make([]byte, 0, max(capacity, need)))
		last++
		b.memory += int64(cap(b.chunks[last]))
	}
	b.chunks[last] = append(append(b.chunks[last], header[:]...), e.data...)
	return nil
}

// spillToFile moves the entries to a file in the folder. The file is unlinked at once if the system allows it, so that
// nothing is left if the process dies.
func (b *buffer) spillToFile(folder string) error {
	if b.file != nil {
		return nil
	}
	if b.folder = folder; folder == "" {
		b.folder = os.TempDir()
	}
	file, err := os.CreateTemp(folder, "cdc-*")
	if err != nil {
		return b.spillError(err)
	}
	_ = os.Remove(file.Name())
	b.file, b.writer = file, bufio.NewWriterSize(file, 16<<10)
	for _, chunk := range b.chunks {
		if _, err := b.writer.Write(chunk); err != nil {
			return b.spillError(err)
		}
	}
	b.chunks, b.memory = nil, 0
	return nil
}

// flushFile ends writing.
func (b *buffer) flushFile() error {
	if b.writer == nil {
		return nil
	}
	err := b.writer.Flush()
	b.writer = nil
	return b.spillError(err)
}

// next reads an entry. It returns io.EOF after the last one.
func (b *buffer) next() (e entry, err error) {
	if b.file != nil {
		return b.nextSpilled()
	}
	if len(b.chunks) == 0 {
		return e, io.EOF
	}
	e, rest := readEntry(b.chunks[0])
	if b.chunks[0] = rest; len(rest) == 0 {
		b.chunks = b.chunks[1:]
	}
	return e, nil
}

func readEntry(data []byte) (e entry, rest []byte) {
	end := entryHeader + int(binary.BigEndian.Uint32(data))
	e.at, e.xid = LSN(binary.BigEndian.Uint64(data[4:])), binary.BigEndian.Uint32(data[12:])
	e.data = data[entryHeader:end]
	return e, data[end:]
}

func (b *buffer) nextSpilled() (e entry, err error) {
	if b.reader == nil {
		if err := b.flushFile(); err != nil {
			return e, err
		}
		if _, err := b.file.Seek(0, io.SeekStart); err != nil {
			return e, b.spillError(err)
		}
		b.reader = bufio.NewReaderSize(b.file, 64<<10)
	}
	var header [entryHeader]byte
	if _, err := io.ReadFull(b.reader, header[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return e, io.EOF
		}
		return e, b.spillError(err)
	}
	n := int(binary.BigEndian.Uint32(header[:]))
	data := b.scratch
	switch {
	case n >= largestChunk:
		data = make([]byte, n)
	case cap(data) < n:
		data = make([]byte, n)
		b.scratch = data
	}
	if _, err := io.ReadFull(b.reader, data[:n]); err != nil {
		return e, b.spillError(err)
	}
	return entry{at: LSN(binary.BigEndian.Uint64(header[4:])), xid: binary.BigEndian.Uint32(header[12:]), data: data[:n]}, nil
}

// release frees the memory and removes the file.
func (b *buffer) release() {
	if b.file != nil {
		_ = b.file.Close()
		_ = os.Remove(b.file.Name()) // for systems on which an open file cannot be removed
	}
	b.chunks, b.memory, b.reader, b.scratch = nil, 0, nil, nil
}

func (b *buffer) spillError(err error) error {
	if err == nil {
		return nil
	}
	return &SpillError{Folder: b.folder, Err: err}
}
