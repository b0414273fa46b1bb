// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package archive writes archives whose bytes depend on nothing but what is in them: names, contents, modes and a time.
package archive

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"
)

// File is one file of an archive.
type File struct {
	// Name in the archive, with slashes.
	Name string
	Data []byte
	// Mode is its permission bits; zero is 0644.
	Mode fs.FileMode
	// Link is what a symbolic link leads to; empty for others.
	Link string
}

// Files are files of mode 0644, by name, below a folder.
func Files(folder string, byName map[string][]byte) []File {
	out := make([]File, 0, len(byName))
	for name, data := range byName {
		out = append(out, File{Name: path.Join(folder, name), Data: data})
	}
	return out
}

func sorted(files []File) []File {
	return slices.SortedFunc(slices.Values(files), func(a, b File) int { return strings.Compare(a.Name, b.Name) })
}

func (f File) mode() fs.FileMode {
	if f.Mode == 0 {
		return 0o644
	}
	return f.Mode
}

// Tar writes files, owned by root.
func Tar(w io.Writer, files []File, at time.Time) error {
	t := tar.NewWriter(w)
	for _, f := range sorted(files) {
		h := &tar.Header{
			Typeflag: tar.TypeReg, Name: f.Name, Size: int64(len(f.Data)), Mode: int64(f.mode()), ModTime: at,
			Format: tar.FormatPAX,
		}
		if f.Link != "" {
			h.Typeflag, h.Linkname, h.Size, h.Mode = tar.TypeSymlink, f.Link, 0, 0o777
		}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		if f.Link != "" {
			continue
		}
		if _, err := t.Write(f.Data); err != nil {
			return err
		}
	}
	return t.Close()
}

// TarGz is Tar, compressed.
func TarGz(files []File, at time.Time) ([]byte, error) {
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if err := Tar(z, files, at); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// Zip is for systems whose users have no tar. It has no links.
func Zip(files []File, at time.Time) ([]byte, error) {
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	for _, f := range sorted(files) {
		h := &zip.FileHeader{Name: f.Name, Method: zip.Deflate, Modified: at.UTC()}
		h.SetMode(f.mode())
		w, err := z.CreateHeader(h)
		if err != nil {
			return nil, err
		}
		if _, err := w.Write(f.Data); err != nil {
			return nil, err
		}
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
