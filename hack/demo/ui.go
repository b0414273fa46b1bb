// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ui prints steps, commands, output and bars; in colour on a terminal, unless NO_COLOR is set (no-color.org).
type ui struct {
	out     io.Writer
	start   time.Time
	steps   int
	colours bool
}

func newUI() *ui {
	_, err := unix.IoctlGetTermios(int(os.Stdout.Fd()), unix.TCGETS)
	return &ui{out: os.Stdout, start: time.Now(), colours: err == nil && os.Getenv("NO_COLOR") == ""}
}

// Styles (ECMA-48 SGR parameters).
const (
	bold   = "1"
	dim    = "2"
	red    = "31"
	green  = "32"
	yellow = "33"
	cyan   = "36"
)

// print writes; where the output can't be written, there is nobody to tell.
func (u *ui) print(format string, args ...any) { _, _ = fmt.Fprintf(u.out, format, args...) }

func (u *ui) style(style, text string) string {
	if !u.colours || text == "" {
		return text
	}
	return "\x1b[" + style + "m" + text + "\x1b[0m"
}

func (u *ui) title(text string) {
	u.steps++
	at := time.Since(u.start).Round(100 * time.Millisecond)
	u.print("\n%s %s\n", u.style(bold+";"+cyan, fmt.Sprintf("━━ %2d  %s", u.steps, text)),
		u.style(dim, fmt.Sprintf("[%s]", at)))
}

// say explains.
func (u *ui) say(format string, args ...any) { u.print("   "+format+"\n", args...) }

func (u *ui) good(format string, args ...any) {
	u.say("%s %s", u.style(green, "✓"), fmt.Sprintf(format, args...))
}

func (u *ui) bad(format string, args ...any) {
	u.say("%s %s", u.style(red, "✗"), fmt.Sprintf(format, args...))
}

// command shows what could be typed to do the same.
func (u *ui) command(line string) { u.print("   %s\n", u.style(yellow, "$ "+line)) }

// hint shows a command to try, and what it does, which follows it after four spaces and a #.
func (u *ui) hint(line string) {
	command, comment, _ := strings.Cut(line, "    # ")
	if comment != "" {
		comment = u.style(dim, "  # "+comment)
	}
	u.say("%s%s", u.style(yellow, "$ "+command), comment)
}

// output shows lines of a program.
func (u *ui) output(text string) {
	for line := range strings.Lines(strings.TrimRight(text, "\n")) {
		u.print("   %s %s\n", u.style(dim, "│"), strings.TrimRight(line, "\n"))
	}
}

// stream shows lines as they come.
func (u *ui) stream(r io.Reader) {
	for s := bufio.NewScanner(r); s.Scan(); {
		u.print("   %s\n", u.style(dim, "│ "+s.Text()))
	}
}

// barWidth is the length of the bar of the whole.
const barWidth = 50

// bars draws shares of a total.
func (u *ui) bars(counts []count) {
	total, width := 0, 0
	for _, c := range counts {
		total += c.n
		width = max(width, len(c.name))
	}
	for _, c := range counts {
		length := (c.n*barWidth + total/2) / total
		style := green
		if !strings.HasPrefix(c.name, "200") {
			style = red
		}
		u.say("%-*s %s%s %4d  %3.0f%%", width, c.name, u.style(style, strings.Repeat("█", length)),
			strings.Repeat(" ", barWidth-length),
			c.n, 100*float64(c.n)/float64(total))
	}
}
