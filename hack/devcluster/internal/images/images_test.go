// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package images

import (
	"slices"
	"testing"
	"testing/fstest"
)

func TestManifestImages(t *testing.T) {
	got, err := manifestImages(fstest.MapFS{
		"base/a.yaml": {Data: []byte(
			"containers:\n- image: registry.example/echo:v1\n- name: x\n  image: \"registry.example/dns:v2\" # why\n")},
		"mesh/b.yaml":  {Data: []byte("  image: registry.example/echo:v1\n")},
		"mesh/c.txt":   {Data: []byte("image: not/a/manifest:1\n")},
		"other/d.yaml": {Data: []byte("image: not/asked/for:1\n")},
	}, "base", "mesh")
	if err != nil || !slices.Equal(got, []string{"registry.example/dns:v2", "registry.example/echo:v1"}) {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestLibraries(t *testing.T) {
	got := libraries("\tlinux-vdso.so.1 (0x00007ffd)\n\tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x00007f)\n" +
		"\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n")
	if len(got) != 2 || got[0].Path != "/lib/x86_64-linux-gnu/libm.so.6" || got[1].Path != "/lib64/ld-linux-x86-64.so.2" {
		t.Errorf("got %+v", got)
	}
}

func TestListed(t *testing.T) {
	const output = "REF TYPE DIGEST SIZE PLATFORMS LABELS\nexample:1 application/x sha256:aa 1.0 KiB linux/amd64 -\n"
	if !listed(output, "example:1", "sha256:aa") || listed(output, "example:1", "sha256:bb") ||
		listed(output, "example", "sha256:aa") {
		t.Error("an image is there under its name with its digest only")
	}
}
