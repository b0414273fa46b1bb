// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"regexp"
	"runtime/debug"
	"slices"
	"time"

	"github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx"
	"github.com/spdx/tools-golang/spdx/v2/common"
)

// SBOM lists what the programs of an image are made of, by what Go wrote into them, as SPDX.
func SBOM(name, digest string, programs map[string]*debug.BuildInfo, at time.Time) ([]byte, error) {
	doc := &spdx.Document{
		SPDXVersion: spdx.Version, DataLicense: spdx.DataLicense, SPDXIdentifier: "DOCUMENT", DocumentName: name,
		// Unique, as SPDX wants it, and the same for the same image.
		DocumentNamespace: "https://fairway.dev/spdx/" + name + "@" + digest,
		CreationInfo: &spdx.CreationInfo{
			Created:  at.UTC().Format(time.RFC3339),
			Creators: []common.Creator{{CreatorType: "Tool", Creator: "fairway make release"}},
		},
	}
	image := &spdx.Package{
		PackageName: name, PackageSPDXIdentifier: "Package-image", PackageVersion: digest,
		PackageDownloadLocation: "NOASSERTION", PackageLicenseDeclared: "Apache-2.0", PackageLicenseConcluded: "Apache-2.0",
		PackageCopyrightText: "NOASSERTION", PrimaryPackagePurpose: "CONTAINER",
	}
	doc.Packages = append(doc.Packages, image)
	relate(doc, "DOCUMENT", "DESCRIBES", image.PackageSPDXIdentifier)
	modules := map[string]*spdx.Package{}
	for _, path := range slices.Sorted(maps.Keys(programs)) {
		info := programs[path]
		program := module(path, info.Main.Version)
		program.PackageSPDXIdentifier = identifier("Program", path, "")
		program.PackageComment = fmt.Sprintf("package %s of module %s, built with %s",
			info.Path, info.Main.Path, info.GoVersion)
		program.PackageExternalReferences = nil
		program.PackageLicenseDeclared, program.PackageLicenseConcluded = "Apache-2.0", "Apache-2.0"
		doc.Packages = append(doc.Packages, program)
		relate(doc, image.PackageSPDXIdentifier, "CONTAINS", program.PackageSPDXIdentifier)
		std := module("stdlib", info.GoVersion)
		modules[string(std.PackageSPDXIdentifier)] = std
		relate(doc, program.PackageSPDXIdentifier, "DEPENDS_ON", std.PackageSPDXIdentifier)
		for _, dep := range info.Deps {
			if dep.Replace != nil {
				dep = dep.Replace
			}
			m := module(dep.Path, dep.Version)
			modules[string(m.PackageSPDXIdentifier)] = m
			relate(doc, program.PackageSPDXIdentifier, "DEPENDS_ON", m.PackageSPDXIdentifier)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(modules)) {
		doc.Packages = append(doc.Packages, modules[id])
	}
	var out bytes.Buffer
	err := json.Write(doc, &out, json.Indent("  "))
	return out.Bytes(), err
}

// ReadSBOM reads what SBOM wrote, and fails where it is not SPDX.
func ReadSBOM(r io.Reader) (*spdx.Document, error) { return json.Read(r) }

func module(path, version string) *spdx.Package {
	return &spdx.Package{
		PackageName: path, PackageVersion: version, PackageSPDXIdentifier: identifier("Package", path, version),
		PackageDownloadLocation: "NOASSERTION", PackageCopyrightText: "NOASSERTION",
		// Go writes no licences into programs.
		PackageLicenseDeclared: "NOASSERTION", PackageLicenseConcluded: "NOASSERTION",
		PackageExternalReferences: []*spdx.PackageExternalReference{{
			Category: common.CategoryPackageManager, RefType: common.TypePackageManagerPURL,
			Locator: "pkg:golang/" + path + "@" + version,
		}},
	}
}

func relate(doc *spdx.Document, from common.ElementID, how string, to common.ElementID) {
	doc.Relationships = append(doc.Relationships, &spdx.Relationship{
		RefA: common.MakeDocElementID("", string(from)), RefB: common.MakeDocElementID("", string(to)), Relationship: how,
	})
}

var notInIdentifiers = regexp.MustCompile(`[^A-Za-z0-9.-]+`)

func identifier(kind, name, version string) common.ElementID {
	return common.ElementID(notInIdentifiers.ReplaceAllString(kind+"-"+name+"-"+version, "-"))
}
