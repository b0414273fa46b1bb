// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package olm makes of a bundle the objects that the Operator Lifecycle Manager would make of it, so that a bundle
// can be tried where no lifecycle manager runs: with what it adds to Deployments, and with what it leaves out.
package olm

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fairway-mesh/fairway/hack/packages/internal/source"
)

// Bundle is a bundle as it is read.
type Bundle struct {
	// CSV is the ClusterServiceVersion.
	CSV source.Object
	// Manifests are all other objects, by file name.
	Manifests []source.Object
}

// most is more than any file of a bundle has: what an archive unpacks to must not fill the memory.
const most = 16 << 20

// Read reads a bundle: a folder that has manifests/, or such a folder packed by tar and gzip, as releases have it.
func Read(file string) (*Bundle, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	if info.IsDir() {
		err = folder(file, files)
	} else {
		err = packed(file, files)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	b, err := Parse(files)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return b, nil
}

func folder(dir string, files map[string][]byte) error {
	return filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		files[filepath.ToSlash(name)], err = os.ReadFile(p)
		return err
	})
}

func packed(file string, files map[string][]byte) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	t := tar.NewReader(z)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		var b bytes.Buffer
		if n, err := io.Copy(&b, io.LimitReader(t, most+1)); err != nil || n > most {
			return errors.Join(err, fmt.Errorf("%s has more than %d bytes, or can't be read", h.Name, most))
		}
		// Below a folder of the bundle's name.
		_, name, _ := strings.Cut(path.Clean(h.Name), "/")
		files[name] = b.Bytes()
	}
}

// Parse reads a bundle of its files, by name.
func Parse(files map[string][]byte) (*Bundle, error) {
	b := &Bundle{}
	names := make([]string, 0, len(files))
	for name := range files {
		if path.Dir(name) == "manifests" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		objects, err := source.Parse(files[name])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		for _, o := range objects {
			switch {
			case o.Kind() != csvKind:
				b.Manifests = append(b.Manifests, o)
			case b.CSV != nil:
				return nil, fmt.Errorf("%s: a second %s", name, csvKind)
			default:
				b.CSV = o
			}
		}
	}
	if b.CSV == nil {
		return nil, fmt.Errorf("no %s in manifests/", csvKind)
	}
	return b, nil
}
