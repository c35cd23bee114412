package io.github.msallogout;

import com.microsoft.aad.msal4j.ITokenCacheAccessAspect;
import com.microsoft.aad.msal4j.ITokenCacheAccessContext;
import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import javax.sql.DataSource;

/** The cache as MSAL4J's documentation has it stored, with a table in place of the sample's string: the control. */
final class StockAspect implements ITokenCacheAccessAspect {
    private final DataSource dataSource;
    private final String key;

    StockAspect(DataSource dataSource, String key) {
        this.dataSource = dataSource;
        this.key = key;
    }

    @Override
    public void beforeCacheAccess(ITokenCacheAccessContext context) {
        try (Connection connection = dataSource.getConnection();
                PreparedStatement statement = connection.prepareStatement("select value from stock_cache where key = ?")) {
            statement.setString(1, key);
            try (ResultSet result = statement.executeQuery()) {
                context.tokenCache().deserialize(result.next() ? result.getString(1) : "");
            }
        } catch (SQLException failure) {
            throw new IllegalStateException(failure);
        }
    }

    @Override
    public void afterCacheAccess(ITokenCacheAccessContext context) {
        if (!context.hasCacheChanged()) {
            return;
        }
        try (Connection connection = dataSource.getConnection();
                PreparedStatement statement = connection.prepareStatement(
                        "insert into stock_cache values (?, ?) on conflict (key) do update set value = excluded.value")) {
            statement.setString(1, key);
            statement.setString(2, context.tokenCache().serialize());
            statement.execute();
        } catch (SQLException failure) {
            throw new IllegalStateException(failure);
        }
    }
}
