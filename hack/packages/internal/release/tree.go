// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package release

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// tree is the commit that a release is of.
type tree struct {
	commit string
	// time that everything in the release has: the commit's, or that of SOURCE_DATE_EPOCH.
	time time.Time
}

func readTree(root string, allowDirty bool) (tree, error) {
	changed, err := git(root, "status", "--porcelain")
	if err != nil {
		return tree{}, err
	}
	if changed != "" && !allowDirty {
		return tree{}, fmt.Errorf("the tree has changes that are not committed, so nobody could make this release again:\n"+
			"%s\nCommit them, or set ALLOW_DIRTY=1 for a trial", changed)
	}
	commit, err := git(root, "rev-parse", "HEAD")
	if err != nil {
		return tree{}, err
	}
	epoch := os.Getenv("SOURCE_DATE_EPOCH")
	if epoch == "" {
		if epoch, err = git(root, "log", "-1", "--format=%ct"); err != nil {
			return tree{}, err
		}
	}
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return tree{}, fmt.Errorf("SOURCE_DATE_EPOCH must be seconds since 1970: %w", err)
	}
	return tree{commit: commit, time: time.Unix(seconds, 0).UTC()}, nil
}

func git(root string, args ...string) (string, error) {
	cmd := exec.Command("git", append([]string{"-C", root}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w: %s (a release is made of a clone)",
			args[0], err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimRight(string(out), "\n"), nil
}
