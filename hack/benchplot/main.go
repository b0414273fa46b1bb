// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Command benchplot draws what `make bench` found, as it is in docs/benchmarks.json, as docs/benchmarks.svg.
package main

import (
	"encoding/json"
	"fmt"
	"image/color"
	"os"
	"slices"

	"github.com/spf13/cobra"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// column is what was measured at one number of routes: for each row the median and the worst, or one figure twice.
type column struct {
	Routes       int
	OnOne, Churn bool
	Rows         map[string][2]float64
}

// A way in which routes are laid out, and whether endpoints change meanwhile, has a line of its own.
var ways = []struct {
	name         string
	onOne, churn bool
	color        color.RGBA
}{
	{"ten routes to a Service", false, false, color.RGBA{0x1b, 0x6c, 0xa8, 0xff}},
	{"… under churn", false, true, color.RGBA{0x8a, 0xbf, 0xe0, 0xff}},
	{"all routes on one Service", true, false, color.RGBA{0xb5, 0x47, 0x2f, 0xff}},
	{"… under churn", true, true, color.RGBA{0xe7, 0xa3, 0x8f, 0xff}},
}

const (
	width, height = 24 * vg.Centimeter, 22 * vg.Centimeter
	margin        = vg.Centimeter
	across        = 2
)

func main() {
	cmd := &cobra.Command{
		Use: "benchplot IN.json OUT.svg", Short: "Draw what `make bench` found", Args: cobra.ExactArgs(2),
		SilenceUsage: true,
		RunE: func(_ *cobra.Command, args []string) error {
			text, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			var columns []column
			if err := json.Unmarshal(text, &columns); err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			return drawAll(columns, args[1])
		},
	}
	if err := cmd.Execute(); err != nil {
		os.Exit(1)
	}
}

// drawAll draws a panel for each row.
func drawAll(columns []column, to string) error {
	var rows []string
	for _, c := range columns {
		for row := range c.Rows {
			if !slices.Contains(rows, row) {
				rows = append(rows, row)
			}
		}
	}
	slices.Sort(rows)
	if len(rows) == 0 {
		return fmt.Errorf("nothing was measured")
	}
	down := (len(rows) + across - 1) / across
	canvas := vgsvg.New(width, height)
	tiles := draw.Tiles{
		Rows: down, Cols: across, PadX: margin, PadY: margin,
		PadTop: margin / 2, PadBottom: margin / 2, PadLeft: margin / 2, PadRight: margin,
	}
	area := draw.New(canvas)
	for n, row := range rows {
		p, err := panel(columns, row, n == 0)
		if err != nil {
			return err
		}
		p.Draw(tiles.At(area, n%across, n/across))
	}
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	if _, err := canvas.WriteTo(f); err != nil {
		return err
	}
	return f.Close()
}

// panel has a line of medians for each way, and a cross for the worst.
func panel(columns []column, row string, legend bool) (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text = row
	p.Title.Padding = margin / 4
	p.X.Label.Text = "routes in the namespace"
	p.Y.Min, p.X.Min = 0, 0
	p.Legend.Padding = margin / 10
	p.Legend.Top, p.Legend.Left = true, true
	p.Add(plotter.NewGrid())
	for _, w := range ways {
		var medians, worst plotter.XYs
		for _, c := range columns {
			values, measured := c.Rows[row]
			if !measured || c.OnOne != w.onOne || c.Churn != w.churn {
				continue
			}
			medians = append(medians, plotter.XY{X: float64(c.Routes), Y: values[0]})
			worst = append(worst, plotter.XY{X: float64(c.Routes), Y: values[1]})
		}
		if len(medians) == 0 {
			continue
		}
		line, points, err := plotter.NewLinePoints(medians)
		if err != nil {
			return nil, err
		}
		line.Color, points.Color, points.Shape = w.color, w.color, draw.CircleGlyph{}
		most, err := plotter.NewScatter(worst)
		if err != nil {
			return nil, err
		}
		most.Color, most.Shape = w.color, draw.CrossGlyph{}
		p.Add(line, points, most)
		if legend {
			p.Legend.Add(w.name, line, points)
		}
	}
	p.Y.Max *= 1.2 // room for the legend
	return p, nil
}
