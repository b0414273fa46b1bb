// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"
)

var (
	at    = time.Unix(1_700_000_000, 0)
	files = []File{
		{Name: "b/program", Data: []byte("binary"), Mode: 0o755},
		{Name: "a", Data: []byte("text")},
		{Name: "c", Link: "b/program"},
	}
)

// TestTarGz: files come in order, with the time and the modes that are asked for, and nobody's name.
func TestTarGz(t *testing.T) {
	b, err := TarGz(files, at)
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if !h.ModTime.Equal(at) || h.Uid != 0 || h.Gid != 0 || h.Uname != "" {
			t.Errorf("%s has time %v and owner %d %q", h.Name, h.ModTime, h.Uid, h.Uname)
		}
		got = append(got, fmt.Sprintf("%s %o %s%s", h.Name, h.Mode, data, h.Linkname))
	}
	if want := []string{"a 644 text", "b/program 755 binary", "c 777 b/program"}; !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

func TestZip(t *testing.T) {
	b, err := Zip(files[:2], at)
	if err != nil {
		t.Fatal(err)
	}
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	if len(z.File) != 2 || z.File[0].Name != "a" || z.File[1].Mode() != 0o755 || !z.File[1].Modified.Equal(at) {
		t.Errorf("got %+v", z.File)
	}
}

// TestSameBytes: the order in which files are given changes nothing.
func TestSameBytes(t *testing.T) {
	reversed := slices.Clone(files)
	slices.Reverse(reversed)
	for name, pack := range map[string]func([]File, time.Time) ([]byte, error){"tar.gz": TarGz, "zip": Zip} {
		a, err := pack(files, at)
		if err != nil {
			t.Fatal(err)
		}
		b, err := pack(reversed, at)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a, b) {
			t.Errorf("%s differs", name)
		}
	}
}
