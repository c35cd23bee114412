// The service serves uPlot's module beside this page's own.
import uPlot from 'uplot'

// biome-ignore lint/style/noDefaultExport: as uPlot has it
export default uPlot
